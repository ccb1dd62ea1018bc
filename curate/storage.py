"""Writing that survives a kill: temporary name, sync, rename; hashed in the same pass."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import IO

from stylear.errors import CorpusError, StorageError

TEMPORARY = ".tmp"  # ending of files that are not finished; the next run removes them


class Differs(CorpusError):
    """What was written is not what was to be written; nothing was replaced."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A finished file: its name, hashes and length."""

    name: str
    sha256: str
    md5: str  # the wids index asks for it
    bytes: int

    @classmethod
    def of(cls, path: Path) -> FileInfo:
        """Hash a file that lies there. Raises CorpusError when it is missing."""
        sha256, md5, count = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
        try:
            with path.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    sha256.update(chunk)
                    md5.update(chunk)
                    count += len(chunk)
        except OSError as error:
            raise CorpusError(f"{path}: expected a file, found: {error.strerror}") from error
        return cls(path.name, sha256.hexdigest(), md5.hexdigest(), count)


class AtomicFile:
    """`with AtomicFile(path) as out: out.write(data)`: the name appears when all bytes are on the disk.

    Leaving with an exception removes what was written. Raises StorageError for a full disk and for
    a place that cannot be written, Differs when a hash was given and the bytes have another.
    """

    def __init__(self, path: Path, sha256: str | None = None) -> None:
        self.path, self.bytes, self.expected = path, 0, sha256
        # a name of its own: a worker that a cluster gave up may still be writing the same file
        self.temporary = path.with_name(f".{path.name}.{token_hex(4)}{TEMPORARY}")
        self._sha256, self._md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        self._stream: IO[bytes] | None = None
        self.info: FileInfo

    def __enter__(self) -> AtomicFile:
        with storage(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.temporary.open("wb", buffering=1 << 20)
        return self

    def write(self, data: bytes) -> None:
        """Append bytes."""
        assert self._stream is not None
        self._sha256.update(data)
        self._md5.update(data)
        self.bytes += len(data)
        with storage(self.path):
            self._stream.write(data)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._stream is not None
        if kind is not None:
            self._discard()
            return
        if self.expected not in (None, self._sha256.hexdigest()):
            self._discard()
            raise Differs(f"{self.path}: the bytes to write are not those that were here")
        try:
            with storage(self.path):
                self._stream.flush()
                os.fsync(self._stream.fileno())
                self._stream.close()
                self.temporary.replace(self.path)
                sync_directory(self.path.parent)
        except StorageError:
            self._discard()
            raise
        self.info = FileInfo(
            self.path.name, self._sha256.hexdigest(), self._md5.hexdigest(), self.bytes
        )

    def _discard(self) -> None:
        """Close and remove the unfinished file; the first error is the one that matters."""
        assert self._stream is not None
        with suppress(OSError):  # a full disk again, while flushing
            self._stream.close()
        self.temporary.unlink(missing_ok=True)


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn an OSError of the disk into a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StorageError(
            f"{path}: cannot write: {error.strerror or error}",
            hint="free some space and run the same command again; finished shards are kept"
            if full
            else "check that the folder exists and can be written",
        ) from error


def sync_directory(path: Path) -> None:
    """Put the names in a directory on the disk."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes, sha256: str | None = None) -> FileInfo:
    """Write a whole small file atomically; Differs when its hash is not the one given."""
    with AtomicFile(path, sha256) as out:
        out.write(data)
    return out.info


def write_text(path: Path, text: str) -> FileInfo:
    """Write a UTF-8 text atomically."""
    return write_bytes(path, text.encode())


def remove_unfinished(root: Path) -> int:
    """Remove the temporary files that a killed run left below `root`; their number."""
    found = [path for path in root.rglob(f".*{TEMPORARY}") if path.is_file()]
    for path in found:
        path.unlink()
    return len(found)
