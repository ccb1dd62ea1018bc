"""Random reads from many shards: files stay open, and objects are copied to the local disk once."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import IO

from stylear.curate.corpus.object_store import BLOCK_BYTES, ObjectPath, in_store

SHARE_OF_FREE = 0.5  # of the free space in the temporary folder (our choice)
HANDLES = 128  # files that stay open (our choice; the limit of a process is often 1,024)


class LocalCopies:
    """Reads parts of files; objects of a store are copied to the temporary folder on first use.

    Copies take at most half of the space that was free there. Objects that do not fit are read by ranged
    requests, and files on a disk are read in place.
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
        """A file descriptor for a file; the oldest one is closed if too many are open."""
        handle = self._handles.get(path)
        if handle is None:
            if len(self._handles) >= HANDLES:
                os.close(self._handles.pop(next(iter(self._handles))))
            handle = self._handles[path] = os.open(path, os.O_RDONLY)
        return handle

    def _copy(self, path: ObjectPath) -> Path | None:
        """The copy of an object; None if there is no space for it."""
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
