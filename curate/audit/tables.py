"""The tables of a finished corpus, read for the audit: some 60 bytes of memory for each pair.

Their shapes (names, types and gaps of columns) are checked first. Then the pairs are indexed by key, and
every other table is read in batches and compared with the index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stylear.curate.audit.keys import KeyIndex, Words, encode_keys
from stylear.curate.corpus import parquet, records
from stylear.curate.corpus.columns import (
    WIDTH,
    Ids,
    Indices,
    Mask,
    combine_chunks,
    concatenate,
)
from stylear.curate.corpus.layout import KINDS, MIX, VERDICTS
from stylear.curate.corpus.pair_reader import record_digest
from stylear.curate.corpus.records import encode_records
from stylear.curate.corpus.split import SPLITS
from stylear.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow as pa

PREFERENCES = "preferences"
PAIR_TYPES = {  # types, with ? where a column may have gaps
    name: {"bool_": "bool"}.get(kind, kind)
    + ("" if name in {"key", "caption", "kind", "source", "content", "details", "kept"} else "?")
    for name, kind in records.TYPES.items()
}
VERDICT_TYPES = {"key": "string", "kept": "bool", "reason": "string?", "group": "string?"}
MIX_TYPES = {
    "key": "string", "kind": "string", "kept": "bool", "split": "string?", "reason": "string?",
}  # fmt: skip
PREFERENCE_TYPES = {
    **dict.fromkeys(("key", "chosen", "rejected"), "string"),
    **dict.fromkeys(("chosen_score", "rejected_score", "margin"), "double?"),  # null: by people
}
Codes = NDArray[np.int32]  # (N,) numbers of words; -1: none


def require_shapes(corpus: Path) -> None:
    """Read every table once. Raises CorpusError naming the file and the column of another shape."""
    shapes: list[tuple[Mapping[str, str], list[Path]]] = [
        (
            PAIR_TYPES,
            [path for folder in (*KINDS, *SPLITS) for path in list_tables(corpus / folder)],
        ),
        (VERDICT_TYPES, [corpus / VERDICTS]),
        (MIX_TYPES, [corpus / MIX]),
        (PREFERENCE_TYPES, list_tables(corpus / PREFERENCES)),
    ]
    for types, paths in shapes:
        for path in paths:
            require_columns(path, types)
            for batch in parquet.read_batches(path, list(types)):
                require_shape(path, types, batch)


def list_tables(folder: Path) -> list[Path]:
    """The tables of a folder of shards, in order."""
    return sorted(folder.glob("*.parquet"))


def require_columns(path: Path, types: Mapping[str, str]) -> None:
    """Raise CorpusError for a column that is missing or of another type."""
    schema = parquet.read_schema(path)
    for name, expected in types.items():
        if name not in schema.names:
            raise CorpusError(
                f"{path}: expected a column {name!r}, found {', '.join(schema.names)}"
            )
        found = str(schema.field(name).type)
        if found != expected.rstrip("?"):
            raise CorpusError(f"{path}: expected {name} as {expected.rstrip('?')}, found {found}")


def require_shape(path: Path, types: Mapping[str, str], batch: pa.RecordBatch) -> None:
    """Raise CorpusError for a damaged page, and for a gap where there may be none."""
    import pyarrow as pa

    try:
        batch.validate(full=True)
    except pa.ArrowException as error:
        raise CorpusError(f"{path}: expected a readable parquet file, found: {error}") from error
    for name, expected in types.items():
        gaps = batch.column(name).null_count
        if gaps and not expected.endswith("?"):
            raise CorpusError(
                f"{path}: expected a value for {name} in every row, found {gaps} without"
            )


class PairIndex:
    """All raw pairs, then all stylized ones, by key."""

    def __init__(self, corpus: Path) -> None:
        self.corpus = corpus
        self.reasons = Words()
        columns = concatenate(self._read_parts())
        self.ids: Ids = columns["id"]
        self.rows: Ids = columns["row"]  # a digest of each row
        self.stylized: Mask = columns["stylized"]
        self.kept: Mask = columns["kept"]
        self.reason: Codes = columns["reason"]
        self._index = KeyIndex(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def _read_parts(self) -> Iterator[dict[str, Any]]:
        empty = parquet.rows_to_table(dict.fromkeys(records.TYPES, ()))
        yield self._to_columns(empty)
        for kind in KINDS:
            for _, table in parquet.read_tables(self.corpus / kind, list(records.TYPES)):
                yield self._to_columns(table)

    def _to_columns(self, table: pa.Table) -> dict[str, Any]:
        kind = combine_chunks(table["kind"]).to_numpy(zero_copy_only=False)
        return {
            "id": encode_keys(table["key"]),
            "row": digest_rows(table),
            "stylized": np.asarray(kind == "stylized", bool).reshape(len(table)),
            "kept": combine_chunks(table["kept"]).to_numpy(zero_copy_only=False),
            "reason": self.reasons.encode(table["reason"]),
        }

    def find(self, column: pa.Array | pa.ChunkedArray) -> Indices:
        """The index of each key; -1 for one that no pair has."""
        return self._index.find(encode_keys(column))

    def find_repeated(self) -> Indices:
        """The pairs whose key an earlier one has."""
        return self._index.find_repeated()

    def name(self, indices: Sequence[int]) -> dict[int, str]:
        """The keys of some pairs; their tables are read again."""
        names: dict[int, str] = {}
        numbers, start = np.unique(np.asarray(indices, np.int64)), 0
        for kind in KINDS if len(numbers) else ():
            for _, table in parquet.read_tables(self.corpus / kind, ["key"]):
                in_table = numbers[(numbers >= start) & (numbers < start + len(table))]
                keys = table["key"].take(in_table - start).to_pylist() if len(in_table) else []
                names |= dict(zip(in_table.tolist(), keys, strict=True))
                start += len(table)
        return names


def look_up(column: NDArray[Any], indices: Indices) -> NDArray[Any]:
    """The values of some pairs; any value for the index -1, also where there is no pair."""
    return column[indices] if len(column) else np.zeros(len(indices), column.dtype)


def digest_rows(table: pa.Table) -> Ids:
    """A digest of 16 bytes of each row, equal for rows that are equal in every column."""
    encoded = encode_records(table).to_pylist()
    rows = b"".join(record_digest((row or "").encode("utf-8", "surrogatepass")) for row in encoded)
    return np.frombuffer(rows, f"S{WIDTH}")


def read_file(path: Path, types: Mapping[str, str]) -> Iterator[pa.Table]:
    """A table in batches."""
    import pyarrow as pa

    for batch in parquet.read_batches(path, list(types)):
        yield pa.Table.from_batches([batch])


def equals(column: pa.Array | pa.ChunkedArray, text: str) -> Mask:
    """A mask of the values that equal a text."""
    import pyarrow.compute as pc

    is_equal = pc.equal(combine_chunks(column), text).fill_null(False)
    mask: Mask = is_equal.to_numpy(zero_copy_only=False)
    return mask
