"""Reads Parquet lists; unused columns stop no row, and a damaged text drops only its row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.fetch.lists.row import Record
from stylear.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_ROWS = 1024
BAD_TEXT = object()  # stands for bytes that are no UTF-8


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a file. Raises SourceError if it is not Parquet or has duplicate column names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: expected a Parquet file, found: {error}") from error
    names = Counter(file.schema_arrow.names)
    repeated = [name for name, count in names.items() if count > 1]
    if repeated:
        numbers = [n for n, name in enumerate(file.schema_arrow.names, 1) if name == repeated[0]]
        file.close()
        raise SourceError(
            f"{path}: expected columns of different names, found {repeated[0]!r} as columns"
            f" {' and '.join(map(str, numbers))}",
            hint="rename one of them in the file",
        )
    return file


def read_parquet(path: Path) -> Iterator[Record]:
    """Read the rows of a Parquet file; a row with text that is not UTF-8 gets the reason `not-utf8`."""
    import pyarrow as pa

    number = 0
    with open_parquet(path) as file:
        try:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                columns = {
                    name: column_values(column)
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                }
                for row in range(batch.num_rows):
                    number += 1
                    values = {name: column[row] for name, column in columns.items()}
                    bad = [name for name, value in values.items() if value is BAD_TEXT]
                    for name in bad:
                        values[name] = None
                    yield Record(number, values, "not-utf8" if bad else None)
        except pa.ArrowException as error:
            raise SourceError(f"{path}: cannot be read: {error}") from error


def column_values(column: pa.Array) -> list[Any]:
    """The values of a column as Python objects; unsupported values become text or None."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = column.cast(pa.large_binary())
        kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [decode_value(value) for value in column.to_pylist()]
    try:
        values = column.to_pylist()
    except (UnicodeDecodeError, ValueError, OverflowError, KeyError, pa.ArrowException):
        return [convert_scalar(column[row]) for row in range(len(column))]
    return [None if isinstance(v, float) and math.isnan(v) else v for v in values]


def decode_value(value: bytes | None) -> Any:
    """Decode UTF-8; BAD_TEXT if that fails."""
    if value is None:
        return None
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return BAD_TEXT


def convert_scalar(scalar: pa.Scalar) -> Any:
    """Convert one value to a Python object, or else to text, or else None."""
    import pyarrow as pa

    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return BAD_TEXT
    except (ValueError, OverflowError, KeyError, pa.ArrowException):
        pass
    try:
        return str(scalar.cast(pa.string()).as_py())
    except (ValueError, OverflowError, KeyError, pa.ArrowException):
        return None
