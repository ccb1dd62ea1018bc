"""The files of an encoded shard: arrays that are appended to, and read row by row, never whole.

A shard has a directory with `encoded.json` (what it was encoded from and by), and for each grid of codes:

    24x40/codes.npy      (N, C, 24, 40) uint16: codes of the image tokenizer, not vocabulary ids
    24x40/features.npy   (N, P, W) float16: features of the frozen image encoder, unless they are computed
    24x40/rows.arrow     key, caption, kind and group of each row

N images of the grid, C augmented copies, P patches + 1, W their width.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from stylear.curate.corpus.local_copies import LocalCopies
from stylear.errors import CorpusError
from stylear.weights.files import write_bytes

if TYPE_CHECKING:
    import pyarrow as pa

Array = npt.NDArray[Any]
CODES, FEATURES, ROWS, RECORD = "codes.npy", "features.npy", "rows.arrow", "encoded.json"
COLUMNS = ("key", "caption", "kind", "group")
REMEDY = "remove its directory; it is encoded again"


class ArrayWriter:
    """Appends rows to a .npy file, whose number of rows is known only at the end."""

    def __init__(self, path: Path, row_shape: Sequence[int], dtype: npt.DTypeLike) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self.row_shape, self.dtype, self.rows = tuple(row_shape), np.dtype(dtype), 0
        self._write_header()

    def append(self, rows: Array) -> None:
        """Append an array (n, *row_shape). Raises ValueError if its shape or type differs."""
        if rows.shape[1:] != self.row_shape or rows.dtype != self.dtype:
            raise ValueError(
                f"expected rows {self.row_shape} {self.dtype}, found {rows.shape[1:]} {rows.dtype}"
            )
        self._file.write(np.ascontiguousarray(rows).data)
        self.rows += len(rows)

    def close(self) -> None:
        """Write the number of rows and sync the file."""
        self._file.seek(0)
        self._write_header()  # of the same length: numpy reserves space for the first axis to grow
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def _write_header(self) -> None:
        shape = (self.rows, *self.row_shape)
        header = {
            "descr": npy.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": shape,
        }
        npy.write_array_header_1_0(self._file, header)


class ArrayReader:
    """Reads single rows of a .npy file. Raises CorpusError if the file is damaged or of another type."""

    def __init__(self, path: Path, dtype: npt.DTypeLike, files: LocalCopies) -> None:
        self.path, self.dtype, self._files = path, np.dtype(dtype), files
        try:
            with path.open("rb") as file:
                version = npy.read_magic(file)
                if version != (1, 0):
                    raise ValueError(f"version {version}")
                shape, fortran, stored_dtype = npy.read_array_header_1_0(file)
                self._start, size = file.tell(), os.fstat(file.fileno()).st_size
        except (OSError, ValueError) as error:
            raise CorpusError(
                f"{path}: expected an encoded array, found: {error}", hint=REMEDY
            ) from error
        self.shape = tuple(map(int, shape))
        self._row_bytes = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        if (
            stored_dtype != self.dtype
            or fortran
            or size != self._start + self.shape[0] * self._row_bytes
        ):
            raise CorpusError(
                f"{path}: expected {self.shape} {self.dtype} in {self._start} + N bytes, found"
                f" {stored_dtype} in {size:,} bytes",
                hint=REMEDY,
            )

    def read(self, row: int) -> Array:
        """One row, an array of shape[1:]."""
        data = self._files.read(self.path, self._start + row * self._row_bytes, self._row_bytes)
        return np.frombuffer(data, self.dtype).reshape(self.shape[1:])


class RowArrays:
    """The rows of several arrays of one row type, read from disk as they are asked for; thread-safe.

    They are read and not mapped into memory, so that pages of the file system's cache do not count as memory
    of the process, and few files are open at a time.
    """

    def __init__(self, paths: Sequence[Path], dtype: npt.DTypeLike) -> None:
        files = LocalCopies()
        self._readers = [ArrayReader(path, dtype, files) for path in paths]
        self._ends = np.cumsum([reader.shape[0] for reader in self._readers])
        self._lock = threading.Lock()

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of a row of the first array."""
        return self._readers[0].shape[1:]

    def read(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> list[Array]:
        """The arrays of some rows."""
        files = np.searchsorted(self._ends, rows, side="right").tolist()
        with self._lock:
            return [
                self._readers[file].read(int(row) - (int(self._ends[file - 1]) if file else 0))
                for file, row in zip(files, rows, strict=True)
            ]


class PartWriter:
    """Writes the rows of one grid of an encoded shard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._arrays: dict[str, ArrayWriter] = {}
        self._rows: list[Mapping[str, str]] = []

    def append(self, rows: Sequence[Mapping[str, str]], arrays: Mapping[str, Array]) -> None:
        """Append rows and their arrays by file name."""
        for name, array in arrays.items():
            if name not in self._arrays:
                self._arrays[name] = ArrayWriter(self.folder / name, array.shape[1:], array.dtype)
            self._arrays[name].append(array)
        self._rows += rows

    def close(self) -> int:
        """Finish the files and return the number of rows."""
        import pyarrow as pa

        for array in self._arrays.values():
            array.close()
        table = pa.table({name: [row[name] for row in self._rows] for name in COLUMNS})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        write_bytes(self.folder / ROWS, sink.getvalue().to_pybytes())
        return len(self._rows)


@dataclass(frozen=True)
class EncodedPart:
    """The rows of one grid of an encoded shard."""

    folder: Path
    rows: int

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width in codes."""
        height, _, width = self.folder.name.partition("x")
        return int(height), int(width)

    def read_table(self) -> pa.Table:
        """Key, caption, kind and group of the rows, mapped into memory and not copied."""
        import pyarrow as pa

        path = self.folder / ROWS
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
            table.validate(full=True)
        except (OSError, pa.ArrowException) as error:
            raise CorpusError(
                f"{path}: expected the encoded rows, found: {error}", hint=REMEDY
            ) from error
        if tuple(table.column_names) != COLUMNS or table.num_rows != self.rows:
            raise CorpusError(
                f"{path}: expected {self.rows} rows of {', '.join(COLUMNS)}, found {table.num_rows} of"
                f" {', '.join(table.column_names)}",
                hint=REMEDY,
            )
        return table
