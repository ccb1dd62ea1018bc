"""The row of a pair, in a table and as the JSON record in a tar: one schema, one serialisation."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Mapping
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

from stylear.errors import CorpusError
from stylear.pair import Kind, Origin, Pair, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_EXTS = ("png", "jpg", "webp")
TYPES = {
    "key": "string",
    "caption": "string",
    "kind": "string",
    "source": "string",
    "content": "string",
    "source_sha256": "string",
    "parent": "string",
    "reference": "string",
    "reference_sha256": "string",
    "details": "string",  # JSON; an object in the json member
    "image_sha256": "string",
    "width": "int32",
    "height": "int32",
    "ext": "string",
    "kept": "bool_",
    "stage": "string",
    "reason": "string",
}
Row = dict[str, Any]
row_values = itemgetter(*TYPES)
ESCAPED = r'["\\\x00-\x1f]'  # characters that JSON strings must escape
DETAILS, AFTER_DETAILS = ',"details":', ',"image_sha256":'  # in a record; in strings it is \"
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def image_extension(data: bytes) -> str | None:
    """png, jpg or webp by the first bytes; None for anything else."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def image_size(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels from the header alone. Raises CorpusError when there is none."""
    if image_extension(data) == "png" and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CorpusError(f"expected a png, jpg or webp image, found: {error}") from error


def pair_to_row(pair: Pair) -> Row:
    """The row of a pair; `details` is still a mapping."""
    origin, image = pair.origin, pair.image
    ext: str | None = None
    width, height = None, None
    if image:
        ext = image_extension(image)
        if ext is None:
            raise CorpusError(
                f"pair {pair.key}: expected a png, jpg or webp image, found {image[:8]!r}"
            )
        width, height = image_size(image)
    return {
        "key": pair.key,
        "caption": pair.caption,
        "kind": origin.kind,
        "source": origin.source,
        "content": origin.content,
        "source_sha256": origin.source_sha256,
        "parent": origin.parent,
        "reference": origin.reference,
        "reference_sha256": origin.reference_sha256,
        "details": dict(origin.details),
        "image_sha256": hashlib.sha256(image).hexdigest() if image else None,
        "width": width,
        "height": height,
        "ext": ext,
        "kept": pair.verdict.kept,
        "stage": pair.verdict.stage,
        "reason": pair.verdict.reason,
    }


def row_to_pair(row: Mapping[str, Any], image: bytes) -> Pair:
    """The pair of a row (`details` as an object or as JSON) and its image bytes."""
    details = row["details"]
    return Pair(
        key=row["key"],
        caption=row["caption"],
        image=image,
        origin=Origin(
            kind=cast(Kind, row["kind"]),
            source=row["source"],
            content=row["content"],
            source_sha256=row["source_sha256"],
            parent=row["parent"],
            reference=row["reference"],
            reference_sha256=row["reference_sha256"],
            details=json.loads(details) if isinstance(details, str) else details,
        ),
        verdict=Verdict(row["kept"], row["stage"], row["reason"]),
    )


def canonical_json(value: Any) -> str:
    """Canonical JSON: no spaces, keys in the order given, no NaN."""
    return ENCODER.encode(value)


def encode_records(table: pa.Table) -> pa.Array:
    """The json member of every row of a table, with its `details` as an object.

    It equals `canonical_json` of each row, computed for whole columns at once.
    """
    import pyarrow.compute as pc

    parts = [
        (f'{"," if n else "{"}"{name}":', encode_column(table, name))
        for n, name in enumerate(TYPES)
    ]
    return pc.binary_join_element_wise(*chain.from_iterable(parts), "}", "")


def encode_column(table: pa.Table, name: str) -> pa.Array:
    """The values of a column as JSON."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table[name].combine_chunks()
    if name == "details":
        return column
    if not pa.types.is_string(column.type):
        return column.cast(pa.string()).fill_null("null")
    if pc.any(pc.match_substring_regex(column, ESCAPED)).as_py():
        return pa.array(map(canonical_json, column.to_pylist()), pa.string())
    return pc.binary_join_element_wise('"', column, '"', "").fill_null("null")


def extract_details(record: str) -> str:
    """The `details` of a record as JSON, as the table stores them."""
    return record[record.index(DETAILS) + len(DETAILS) : record.rindex(AFTER_DETAILS)]
