"""The columns of a finished corpus, read for the audit: names, types and gaps are checked first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stylear.curate.corpus import parquet, records
from stylear.curate.corpus.columns import WIDTH, Mask, combine_chunks, concatenate, to_bytes
from stylear.curate.corpus.layout import KINDS, MIX, VERDICTS
from stylear.curate.corpus.split import SPLITS
from stylear.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow as pa

Columns = Mapping[
    str, Any
]  # key, ROW and picture as bytes, kept as a mask, the rest as Arrow arrays
ROW = "row"  # a digest of 16 bytes, equal for rows that are equal in every column
PAIRS = {  # types, with ? where a column may have gaps
    name: {"bool_": "bool"}.get(kind, kind)
    + ("" if name in {"key", "caption", "kind", "source", "content", "details", "kept"} else "?")
    for name, kind in records.TYPES.items()
}
VERDICT_TYPES = {"key": "string", "kept": "bool", "reason": "string?", "group": "string?"}
MIX_TYPES = {
    "key": "string", "kind": "string", "kept": "bool", "split": "string?", "reason": "string?",
}  # fmt: skip
PREFERENCES = {
    **dict.fromkeys(("key", "chosen", "rejected"), "string"),
    **dict.fromkeys(("chosen_score", "rejected_score", "margin"), "double?"),  # null: by people
}
COMPARED = ("kind", "kept", "content", "reference", "parent", "reason")


class Tables:
    """The columns of the pairs, the verdicts, the mix, the splits and the preference pairs.

    Raises CorpusError naming a table of another shape.
    """

    def __init__(self, corpus: Path) -> None:
        self.pairs = read_columns(PAIRS, pair_columns, *(corpus / kind for kind in KINDS))
        self.verdicts = read_columns(VERDICT_TYPES, verdict_columns, corpus / VERDICTS)
        self.mix = read_columns(MIX_TYPES, verdict_columns, corpus / MIX)
        self.splits = {
            split: read_columns(PAIRS, sample_columns, corpus / split) for split in SPLITS
        }
        self.preferences = read_columns(PREFERENCES, preference_columns, corpus / "preferences")


def read_columns(
    types: Mapping[str, str], convert: Callable[[pa.Table], dict[str, Any]], *sources: Path
) -> Columns:
    """The columns that `convert` takes from every table of the sources: folders or single tables."""
    import pyarrow as pa

    def parts() -> Iterator[dict[str, Any]]:
        arrow = {"string": pa.string(), "bool": pa.bool_(), "int32": pa.int32()}
        kinds = {name: arrow.get(kind.rstrip("?"), pa.float64()) for name, kind in types.items()}
        yield convert(pa.schema(list(kinds.items())).empty_table())
        for source in sources:
            paths = sorted(source.glob("*.parquet")) if source.suffix != ".parquet" else [source]
            yield from (convert(read_checked(path, types)) for path in paths)

    return concatenate(parts())


def read_checked(path: Path, types: Mapping[str, str]) -> pa.Table:
    """A table with columns of these types. Raises CorpusError naming the file and the column."""
    table = parquet.read_table(path, list(types))
    for name, expected in types.items():
        found = str(table.schema.field(name).type)
        if found != expected.rstrip("?"):
            raise CorpusError(f"{path}: expected {name} as {expected.rstrip('?')}, found {found}")
        if table[name].null_count and not expected.endswith("?"):
            raise CorpusError(
                f"{path}: expected a value for {name} in every row, found {table[name].null_count} without"
            )
    return table.select(list(types))


def pair_columns(table: pa.Table) -> dict[str, Any]:
    """The columns of raw and stylized pairs that the audit compares."""
    rows = b"".join(
        blake2b(
            repr(tuple(row.values())).encode("utf-8", "surrogatepass"), digest_size=WIDTH
        ).digest()
        for row in table.to_pylist()
    )
    found = verdict_columns(table.select(["key", *COMPARED]))
    return {**found, ROW: np.frombuffer(rows, f"S{WIDTH}")}


def sample_columns(table: pa.Table) -> dict[str, Any]:
    """Those columns of the pairs in training shards, and the hashes of their pictures."""
    return {**pair_columns(table), "picture": to_bytes(combine_chunks(table["image_sha256"]))}


def verdict_columns(table: pa.Table) -> dict[str, Any]:
    """Keys as bytes, flags as masks, other columns unchanged."""
    columns = {name: combine_chunks(table[name]) for name in table.column_names}
    columns["key"] = to_bytes(columns["key"])
    columns["kept"] = columns["kept"].to_numpy(zero_copy_only=False)
    return columns


def preference_columns(table: pa.Table) -> dict[str, Any]:
    """All columns unchanged."""
    return {name: combine_chunks(table[name]) for name in table.column_names}


def equals(column: pa.Array, text: str) -> Mask:
    """A mask of the values that equal a text."""
    import pyarrow.compute as pc

    found: Mask = pc.equal(column, text).fill_null(False).to_numpy(zero_copy_only=False)
    return found
