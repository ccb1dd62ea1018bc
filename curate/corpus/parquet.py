"""Parquet tables of a corpus: written atomically and byte-reproducibly, checked when read."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.corpus.object_store import corpus_path, in_store
from stylear.curate.corpus.records import TYPES, Row
from stylear.curate.corpus.storage import FileInfo, write_bytes
from stylear.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 1 << 16


def rows_to_table(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """A table of the shard schema from columns; `details` are JSON."""
    import pyarrow as pa

    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in TYPES.items()])
    return pa.table(dict(columns), schema=schema)


def write_table(path: Path, table: pa.Table, sha256: str | None = None) -> FileInfo:
    """Write a table as parquet (zstd), atomically; the same rows give the same bytes.

    Raises HashMismatch if `sha256` is given and the bytes have another hash.
    """
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", store_schema=True)
    return write_bytes(path, out.getvalue(), sha256)


def read_table(path: Path | str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a parquet file. Raises CorpusError naming the file and a missing column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(_source(path)) as file:
            missing = [name for name in columns or () if name not in file.schema_arrow.names]
            if missing:
                raise CorpusError(
                    f"{path}: expected a column {missing[0]!r}, found {', '.join(file.schema_arrow.names)}"
                )
            table = file.read(columns=columns, use_threads=False)
            table.validate(full=True)  # a damaged page may hold anything, not only text
            return table
    except FileNotFoundError as error:
        raise CorpusError(
            f"{path}: expected this table, found nothing",
            hint="`stylear curate run RECIPE --out CORPUS` builds what a corpus lacks",
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(
            f"{path}: expected a readable parquet file, found: {str(error).splitlines()[0]}",
            hint="`stylear curate run RECIPE --out CORPUS` rebuilds damaged files",
        ) from error


def _source(path: Path | str) -> Any:
    """The file for pyarrow: its path, or a stream of an object."""
    opened = corpus_path(path)
    return opened.open("rb") if in_store(opened) else opened


def read_schema(path: Path | str) -> pa.Schema:
    """The names and types of a table's columns. Raises CorpusError naming the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(_source(path)) as file:
            return file.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(
            f"{path}: expected a readable parquet file, found: {str(error).splitlines()[0]}",
            hint="`stylear curate run RECIPE --out CORPUS` rebuilds damaged files",
        ) from error


def read_tables(
    folder: Path, columns: Sequence[str] | None = None
) -> Iterator[tuple[Path, pa.Table]]:
    """Read the tables of a stage directory in shard order, one at a time."""
    for path in sorted(folder.glob("*.parquet")):
        yield path, read_table(path, columns)


def read_batches(
    path: Path | str, columns: Sequence[str] | None = None, rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """The rows of a parquet file, `rows` of them in memory at a time. Raises CorpusError naming the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(_source(path)) as file:
            yield from file.iter_batches(batch_size=rows, columns=columns, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(
            f"{path}: expected a readable parquet file, found: {str(error).splitlines()[0]}",
            hint="run the stage that writes it again",
        ) from error


def read_rows(path: Path | str) -> list[Row]:
    """Read the rows of a shard's table and check them against the schema."""
    rows: list[Row] = read_table(path, list(TYPES)).to_pylist()
    require_unique_keys([row["key"] for row in rows], corpus_path(path))
    return rows


def count_rows(folder: Path) -> int:
    """The number of rows of the tables in a folder."""
    return sum(count_table_rows(path) for path in sorted(folder.glob("*.parquet")))


def count_table_rows(path: Path) -> int:
    """Rows of one table, by its footer. Raises CorpusError for a file that is missing or not Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(_source(path)) as file:
            return int(file.metadata.num_rows)
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(
            f"{path}: expected a readable parquet file, found: {str(error).splitlines()[0]}",
            hint="`stylear curate run RECIPE --out CORPUS` rebuilds damaged files",
        ) from error


def file_sha256(path: Path | str) -> str:
    """The hash of a file's bytes."""
    return FileInfo.of(corpus_path(path)).sha256


def require_unique_keys(keys: Sequence[str], where: Path) -> None:
    """Raise CorpusError for a duplicate key."""
    if len(set(keys)) != len(keys):
        key = Counter(keys).most_common(1)[0][0]
        raise CorpusError(f"{where}: expected unique keys, found {key} twice")
