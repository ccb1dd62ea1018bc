"""A pair as one flat record, for Croissant, Parquet and the Hugging Face folder.

Only stylized pairs have `prompt`, `seed`, `model` and `model_sha256`: a raw pair's detail of such a name
was a column of a source's list, so it stays in `details`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stylear.curate.corpus.licences import find_licence
from stylear.curate.corpus.records import image_extension, image_size
from stylear.errors import CorpusError
from stylear.pair import Pair, Scalar

if TYPE_CHECKING:
    import pyarrow as pa

FIELDS = {  # name: (Arrow type, description)
    "key": ("string", "Identity of the pair in the corpus."),
    "split": ("string", "train or validation; no content and no style reference is in both."),
    "caption": ("string", "The text that belongs to the picture."),
    "kind": ("string", "raw: from outside; stylized: synthesised."),
    "source": ("string", "Where the picture comes from: a URL, a file, a synthesiser."),
    "content": ("string", "Identity of what is shown."),
    "parent": ("string", "Key of the raw pair whose content was stylized."),
    "style": ("string", "The style of a stylized pair."),
    "reference": ("string", "The style reference, which is not in the corpus."),
    "reference_sha256": ("string", "SHA-256 of the reference's file."),
    "prompt": ("string", "What the synthesiser was asked to draw."),
    "seed": (
        "string",
        "Seed of the synthesis: 63 bits in decimal, as text, since a float rounds them.",
    ),
    "synthesizer": ("string", "Backend that made a stylized picture."),
    "model": ("string", "Model of the backend, by name; none where the backend has no weights."),
    "model_sha256": ("string", "SHA-256 over the model's files; further hashes are in details."),
    "licence": ("string", "Licence as the source stated it."),
    "source_sha256": ("string", "SHA-256 of the bytes as they came from the source."),
    "image_sha256": ("string", "SHA-256 of the picture's bytes."),
    "width": ("int32", "Pixels."),
    "height": ("int32", "Pixels."),
    "details": ("string", "All further provenance, as JSON."),
}
SPLIT_NAMES = {"train": "train", "val": "validation"}  # as other tools call them
SYNTHESIZER = "synthesizer:"


def flatten_pair(pair: Pair, split: str) -> dict[str, Any]:
    """The record of a pair: the names of FIELDS in their order, None for missing values."""
    origin, details = pair.origin, pair.origin.details
    stylized = origin.kind == "stylized"
    width, height = image_size(pair.image)
    return {
        "key": pair.key,
        "split": SPLIT_NAMES[split],
        "caption": pair.caption,
        "kind": origin.kind,
        "source": origin.source,
        "content": origin.content,
        "parent": origin.parent,
        "style": parse_style(origin.reference),
        "reference": origin.reference,
        "reference_sha256": origin.reference_sha256,
        "prompt": text_or_none(details.get("prompt")) if stylized else None,
        "seed": format_seed(details) if stylized else None,
        "synthesizer": parse_synthesizer(origin.source) if stylized else None,
        "model": text_or_none(details.get("model")) if stylized else None,
        "model_sha256": text_or_none(details.get("model_sha256")) if stylized else None,
        "licence": find_licence(details),
        "source_sha256": origin.source_sha256,
        "image_sha256": hashlib.sha256(pair.image).hexdigest(),
        "width": width,
        "height": height,
        "details": json.dumps(details, ensure_ascii=False, separators=(",", ":"), allow_nan=False),
    }


def arrow_schema() -> pa.Schema:
    """The schema of the records."""
    import pyarrow as pa

    return pa.schema([(name, getattr(pa, kind)()) for name, (kind, _) in FIELDS.items()])


def image_name(pair: Pair) -> str:
    """`KEY.png`: the key, which has no path in it, and the ending by the picture's first bytes."""
    extension = image_extension(pair.image)
    if extension is None:
        raise CorpusError(
            f"pair {pair.key}: expected a png, jpg or webp image, found {pair.image[:8]!r}"
        )
    return f"{pair.key}.{extension}"


def parse_style(reference: str | None) -> str | None:
    """The style of a reference: several references `<style>--<n>` may share a style."""
    return None if reference is None else reference.split("--")[0]


def parse_synthesizer(source: str) -> str | None:
    """The backend of a stylized pair's source."""
    return source.removeprefix(SYNTHESIZER) if source.startswith(SYNTHESIZER) else None


def format_seed(details: Mapping[str, Scalar]) -> str | None:
    """The seed in the details of a stylized pair, as text because readers of JSON round large integers."""
    seed = details.get("seed")
    return str(seed) if isinstance(seed, int) and not isinstance(seed, bool) else None


def text_or_none(value: Scalar) -> str | None:
    """A detail if it is text, else None."""
    return value if isinstance(value, str) else None
