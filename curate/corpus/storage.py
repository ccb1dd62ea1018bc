"""Atomic writes: to a temporary name, synced and renamed, and hashed in the same pass.

For an object store the file is written to the local disk and uploaded at the end, which is atomic too.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import IO, cast

from stylear.curate.corpus.hashing import HashedWriter
from stylear.curate.corpus.layout import WORK
from stylear.curate.corpus.object_store import in_store
from stylear.errors import CorpusError, StorageError

TEMPORARY = ".tmp"  # ending of unfinished files, which the next run removes


class HashMismatch(CorpusError):
    """The bytes do not have the expected hash; no file was replaced."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A finished file: its name, hashes and length."""

    name: str
    sha256: str
    md5: str | None  # where the wids index asks for it
    bytes: int

    @classmethod
    def of(cls, path: Path, *, md5: bool = False) -> FileInfo:
        """Hash an existing file, on request with MD5. Raises CorpusError if it is missing."""
        hashes = [hashlib.sha256(), *([hashlib.md5(usedforsecurity=False)] if md5 else [])]
        count = 0
        try:
            with path.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    for digest in hashes:
                        digest.update(chunk)
                    count += len(chunk)
        except OSError as error:
            raise CorpusError(
                f"{path}: expected a file, found: {error.strerror or error}"
            ) from error
        digests = [digest.hexdigest() for digest in hashes]
        return cls(path.name, digests[0], digests[1] if md5 else None, count)


class AtomicFile:
    """`with AtomicFile(path) as out: out.write(data)`: the file appears once all bytes are on the disk.

    An exception inside removes what was written. Raises StorageError if the disk is full or the place cannot
    be written, HashMismatch if a hash was given and the bytes have another.
    """

    def __init__(self, path: Path, sha256: str | None = None, *, md5: bool = False) -> None:
        self.path, self.bytes, self.expected = path, 0, sha256
        # a unique name: a worker that a cluster has given up may still be writing the same file
        self.temporary = path.with_name(f".{path.name}.{token_hex(4)}{TEMPORARY}")
        self._md5 = md5
        self._stream: IO[bytes] | None = None
        self.info: FileInfo

    def __enter__(self) -> AtomicFile:
        with map_storage_errors(self.path):
            if in_store(self.path):
                handle, name = tempfile.mkstemp(prefix="stylear-", suffix=f"-{self.path.name}")
                self.temporary = Path(name)
                self._stream = open(handle, "wb", buffering=1 << 20)  # noqa: PTH123
            else:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._stream = self.temporary.open("wb", buffering=1 << 20)
        self._out = HashedWriter(self._stream, md5=self._md5)
        return self

    def write(self, *parts: bytes | memoryview) -> None:
        """Append bytes."""
        size = sum(map(len, parts))
        self.bytes += size
        try:
            self._out.write(parts, size)
        except OSError as error:
            raise storage_error(self.path, error) from error

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
        try:
            with map_storage_errors(self.path):
                sha256, md5 = self._out.finish()
                if self.expected not in (None, sha256):
                    raise HashMismatch(
                        f"{self.path}: expected the bytes that were committed, found others"
                    )
                self._stream.flush()
                if in_store(self.path):
                    self._stream.close()
                    self.path.upload(self.temporary)
                    self.temporary.unlink()
                else:
                    os.fsync(self._stream.fileno())
                    self._stream.close()
                    self.temporary.replace(self.path)
                    sync_directory(self.path.parent)
        except (StorageError, HashMismatch):
            self._discard()
            raise
        self.info = FileInfo(self.path.name, sha256, md5, self.bytes)

    def _discard(self) -> None:
        """Close and remove the unfinished file; the first error is the one that matters."""
        assert self._stream is not None
        self._out.close()
        with suppress(OSError):  # a full disk again, while flushing
            self._stream.close()
        self.temporary.unlink(missing_ok=True)


@contextmanager
def map_storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error


def storage_error(path: Path, error: OSError) -> StorageError:
    """The StorageError for an OSError of a disk or a store."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space and run the same command again; finished shards are kept"
    elif in_store(path):
        hint = "check the bucket and the credentials, then run the same command again"
    else:
        hint = "check that the folder exists and can be written"
    return StorageError(f"{path}: cannot write: {error.strerror or error}", hint=hint)


def sync_directory(path: Path) -> None:
    """Sync a directory, so that its file names are on the disk."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes, sha256: str | None = None) -> FileInfo:
    """Write a small file atomically. Raises HashMismatch if its hash is not the one given."""
    with AtomicFile(path, sha256) as out:
        out.write(data)
    return out.info


def write_text(path: Path, text: str) -> FileInfo:
    """Write a UTF-8 text atomically."""
    return write_bytes(path, text.encode())


def list_files(root: Path) -> list[Path]:
    """All files below `root`, sorted; a store lists them without a request for each."""
    if in_store(root):
        return cast(list[Path], root.files())
    return sorted(path for path in root.rglob("*") if path.is_file())


def file_size(path: Path) -> int | None:
    """The size of a file in bytes; None if it does not exist."""
    if in_store(path):
        return path.size()
    return path.stat().st_size if path.is_file() else None


def remove_path(path: Path) -> None:
    """Remove a file, or a folder with its contents, if it exists."""
    with map_storage_errors(path):
        if in_store(path):
            path.unlink(missing_ok=True)
            path.remove_tree()
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def work_folder(corpus: Path) -> Path:
    """The folder of downloads until they are ingested: in the corpus; for a store, in the user's cache."""
    if not in_store(corpus):
        return corpus / WORK
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "stylear" / "work" / hashlib.sha256(str(corpus).encode()).hexdigest()[:16]


def remove_unfinished(root: Path) -> int:
    """Remove the temporary files that a killed run left below `root` and return their number.

    A store has none, as unfinished uploads have no name there.
    """
    if in_store(root):
        return 0
    paths = [path for path in root.rglob(f".*{TEMPORARY}") if path.is_file()]
    for path in paths:
        path.unlink()
    return len(paths)
