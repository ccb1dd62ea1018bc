"""The columns of a finished corpus, read for the audit: names, types and gaps checked first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stylear.curate.corpus import parquet, records
from stylear.curate.corpus.columns import WIDTH, Mask, combine_chunks, concatenate, to_bytes
from stylear.curate.corpus.layout import KINDS, MIX, VERDICTS
from stylear.curate.mix.mixing import SPLITS
from stylear.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow as pa

Columns = Mapping[
    str, Any
]  # key as bytes, the rest as Arrow arrays; ROW, KEPT and RAW as NumPy arrays
ROW = "row"  # 16 bytes, equal for rows that are equal in every column
PAIRS = {
    name: {"bool_": "bool"}.get(kind, kind)
    + ("" if name in {"key", "caption", "kind", "source", "content", "details", "kept"} else "?")
    for name, kind in records.TYPES.items()
}
JUDGED = {"key": "string", "kept": "bool", "reason": "string?", "group": "string?"}
MIXED = {"key": "string", "kind": "string", "kept": "bool", "split": "string?", "reason": "string?"}
PREFERENCES = {
    **dict.fromkeys(("key", "chosen", "rejected"), "string"),
    **dict.fromkeys(("chosen_score", "rejected_score", "margin"), "double"),
}
COMPARED = ("kind", "kept", "content", "reference", "parent", "reason")


class Tables:
    """Of the pairs, of the verdicts, of the training splits and of the preference pairs.

    Raises CorpusError naming the table that is not as it should be.
    """

    def __init__(self, corpus: Path) -> None:
        self.made = columns(PAIRS, made, *(corpus / kind for kind in KINDS))
        self.verdicts = columns(JUDGED, judged, corpus / VERDICTS)
        self.mixed = columns(MIXED, judged, corpus / MIX)
        self.splits = {split: columns(PAIRS, mixed, corpus / split) for split in SPLITS}
        self.preferences = columns(PREFERENCES, preferred, corpus / "preferences")


def columns(
    types: Mapping[str, str], of: Callable[[pa.Table], dict[str, Any]], *places: Path
) -> Columns:
    """Columns of all tables of stage directories, or of one table."""
    import pyarrow as pa

    def parts() -> Iterator[dict[str, Any]]:
        arrow = {"string": pa.string(), "bool": pa.bool_(), "int32": pa.int32()}
        kinds = {name: arrow.get(kind.rstrip("?"), pa.float64()) for name, kind in types.items()}
        yield of(pa.schema(list(kinds.items())).empty_table())
        for place in places:
            paths = sorted(place.glob("*.parquet")) if place.suffix != ".parquet" else [place]
            yield from (of(checked(path, types)) for path in paths)

    return concatenate(parts())


def made(table: pa.Table) -> dict[str, Any]:
    """What the audit compares of raw and stylized pairs."""
    rows = b"".join(
        blake2b(
            repr(tuple(row.values())).encode("utf-8", "surrogatepass"), digest_size=WIDTH
        ).digest()
        for row in table.to_pylist()
    )
    found = judged(table.select(["key", *COMPARED]))
    return {**found, ROW: np.frombuffer(rows, f"S{WIDTH}")}


def mixed(table: pa.Table) -> dict[str, Any]:
    """The same of pairs in training shards, and their pictures."""
    return {**made(table), "picture": to_bytes(combine_chunks(table["image_sha256"]))}


def judged(table: pa.Table) -> dict[str, Any]:
    """Keys as bytes, flags as masks, the rest as it is."""
    found = {name: combine_chunks(table[name]) for name in table.column_names}
    found["key"] = to_bytes(found["key"])
    found["kept"] = found["kept"].to_numpy(zero_copy_only=False)
    return found


def preferred(table: pa.Table) -> dict[str, Any]:
    """All columns as they are."""
    return {name: combine_chunks(table[name]) for name in table.column_names}


def equal(column: pa.Array, text: str) -> Mask:
    """Which values are this text."""
    import pyarrow.compute as pc

    found: Mask = pc.equal(column, text).fill_null(False).to_numpy(zero_copy_only=False)
    return found


def checked(path: Path, types: Mapping[str, str]) -> pa.Table:
    """A table; `types` says what each column holds, with ? where it may have gaps.

    Raises CorpusError naming the file and the column.
    """
    table = parquet.read_table(path, list(types))
    for name, expected in types.items():
        found = str(table.schema.field(name).type)
        if found != expected.rstrip("?"):
            raise CorpusError(f"{path}: expected {name} as {expected.rstrip('?')}, found {found}")
        if table[name].null_count and not expected.endswith("?"):
            raise CorpusError(
                f"{path}: expected a value for {name} in every row, found none in some"
            )
    return table.select(list(types))
