"""Reading here and there: files stay open, and objects are copied once instead of asked for every picture."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import IO

from stylear.curate.corpus.object_store import BLOCK_BYTES, ObjectPath, in_store

SHARE_OF_FREE = 0.5  # of the disk of temporary files that copies may take (ours)
HANDLES = 128  # files that stay open (ours; a process may often have 1,024)


class LocalCopies:
    """Local copies of objects that are read here and there, each fetched once.

    They take at most half of what was free on the disk of temporary files; objects beyond that are read
    in ranges where they lie. A path on a disk is read where it lies.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._free = 0
        self._copies: dict[ObjectPath, Path] = {}
        self._handles: dict[Path, int] = {}
        weakref.finalize(self, _close, self._handles)

    def open(self, path: Path) -> IO[bytes]:
        """A file to read from."""
        if not in_store(path):
            return path.open("rb")
        copy = self._copy(path)
        return path.open("rb") if copy is None else copy.open("rb")

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`."""
        if not in_store(path):
            return os.pread(self._handle(path), size, offset)
        copy = self._copy(path)
        if copy is None:
            return path.read_range(offset, offset + size)
        return os.pread(self._handle(copy), size, offset)

    def _handle(self, path: Path) -> int:
        """An open file; the one that was opened first is closed when there are too many."""
        handle = self._handles.get(path)
        if handle is None:
            if len(self._handles) >= HANDLES:
                os.close(self._handles.pop(next(iter(self._handles))))
            handle = self._handles[path] = os.open(path, os.O_RDONLY)
        return handle

    def _copy(self, path: ObjectPath) -> Path | None:
        """The copy of an object; None when it would take too much room."""
        if path in self._copies:
            return self._copies[path]
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="stylear-"))
            self._free = int(SHARE_OF_FREE * shutil.disk_usage(self._folder).free)
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        size = path.stat().st_size
        if size > self._free:
            return None
        self._free -= size
        copy = self._folder / f"{len(self._copies)}-{path.name}"
        with path.open("rb") as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, BLOCK_BYTES)
        self._copies[path] = copy
        return copy


def _close(handles: dict[Path, int]) -> None:
    for handle in handles.values():
        os.close(handle)
