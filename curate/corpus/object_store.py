"""Paths in object stores, with the interface of `pathlib.Path`, for any URL that fsspec supports.

An object appears complete when its upload ends, or not at all. Credentials come from the environment or from
fsspec's configuration, never from a URL.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from functools import total_ordering
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeGuard, cast

from stylear.curate.corpus.store_client import NO_BUCKET, OBSTORE, open_filesystem, with_retries
from stylear.errors import StoreFailed, UsageError

BLOCK_BYTES = 8 << 20  # of one ranged read; a smaller object is read at once
IN_PROCESS = ("memory",)  # another process would see another, empty store
NO_FOLDERS = (*OBSTORE, "s3a", "gcs", "abfs", "abfss", "adl", *IN_PROCESS)


def corpus_path(path: str | Path) -> Path:
    """Parse a local path or a URL of an object store (`s3://bucket/corpus`).

    A path in a store has the interface of a Path without being one. Raises UsageError for a URL that
    contains a password, and for a protocol without an installed client.
    """
    if isinstance(path, Path) or in_store(path):
        return cast(Path, path)
    protocol, separator, location = str(path).partition("://")
    if not separator:
        return Path(path)
    if protocol in ("file", "local"):
        return Path(location)
    secret, _, public = location.rpartition("@")  # a secret key may well have a / in it
    if ":" in secret:
        raise UsageError(
            f"{protocol}://...@{public}: expected no password in the URL, found one",
            hint="give credentials in the environment or in fsspec's configuration",
        )
    if not location.strip("/"):
        raise UsageError(f"{path}: expected PROTOCOL://BUCKET/FOLDER, found no folder")
    open_filesystem(protocol)
    return cast(Path, ObjectPath(str(path)))


def in_store(path: object) -> TypeGuard[ObjectPath]:
    """Whether a path is in an object store rather than on a disk."""
    return isinstance(path, ObjectPath)


def in_process(path: object) -> bool:
    """Whether only this process can see a path (`memory://`)."""
    return in_store(path) and path.protocol in IN_PROCESS


@dataclass(frozen=True, slots=True)
class Stat:
    """The metadata of an object that is read without its content."""

    st_size: int


@total_ordering
class ObjectPath:
    """An object or a prefix of a store, by its URL."""

    __slots__ = ("_rest", "protocol")

    def __init__(self, url: str) -> None:
        self.protocol, _, location = url.partition("://")
        root = "/" if location.startswith("/") else ""
        self._rest = root + "/".join(part for part in location.split("/") if part)

    def __str__(self) -> str:
        return f"{self.protocol}://{self._rest}"

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    def __reduce__(self) -> tuple[type[ObjectPath], tuple[str]]:
        return ObjectPath, (str(self),)

    def __eq__(self, other: object) -> bool:
        return in_store(other) and str(self) == str(other)

    def __lt__(self, other: ObjectPath) -> bool:
        return str(self).split("/") < str(other).split("/")

    def __hash__(self) -> int:
        return hash(str(self))

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(f"{self}/{name}")

    @property
    def name(self) -> str:
        return self._rest.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> ObjectPath:
        return ObjectPath(f"{self.protocol}://{self._rest.rpartition('/')[0]}")

    def with_name(self, name: str) -> ObjectPath:
        return self.parent / name

    def with_suffix(self, suffix: str) -> ObjectPath:
        return self.parent / f"{self.stem}{suffix}"

    def as_posix(self) -> str:
        return str(self)

    def resolve(self) -> ObjectPath:
        """Itself: a URL is absolute."""
        return self

    def relative_to(self, other: ObjectPath) -> PurePosixPath:
        """This path relative to `other`. Raises ValueError if it is not below it."""
        return PurePosixPath(str(self)).relative_to(PurePosixPath(str(other)))

    # --- asking ---

    @property
    def _inner(self) -> str:
        """The path as the client spells it."""
        return cast(str, open_filesystem(self.protocol)._strip_protocol(str(self)))

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client on this path, with retries."""
        call = getattr(open_filesystem(self.protocol), method)
        return with_retries(self, lambda: call(self._inner, *args, **kwargs))

    def size(self) -> int | None:
        """The size of the object in bytes; None if it does not exist."""
        if "/" not in self._rest.strip("/"):
            return None  # a bucket
        try:
            info = self._call("info")
        except FileNotFoundError:
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def stat(self) -> Stat:
        size = self.size()
        if size is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        return Stat(size)

    def is_file(self) -> bool:
        return self.size() is not None

    def is_dir(self) -> bool:
        return bool(self._entries())

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def modified(self) -> datetime:
        """When the object was last written, by the clock of the store."""
        return cast(datetime, self._call("modified"))

    def iterdir(self) -> Iterator[ObjectPath]:
        yield from (self / name for name in self._entries())

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        """The objects and prefixes directly below that match a pattern."""
        yield from (self / name for name in self._entries() if fnmatchcase(name, pattern))

    def files(self) -> list[ObjectPath]:
        """All objects below, by name."""
        open_filesystem(self.protocol).invalidate_cache()
        try:
            names = self._call("find")
        except FileNotFoundError:
            return []
        start = f"{self._inner.rstrip('/')}/"
        return sorted(self / name.removeprefix(start) for name in names if name.startswith(start))

    def rglob(self, pattern: str) -> Iterator[ObjectPath]:
        """The objects anywhere below that match a pattern."""
        yield from (path for path in self.files() if fnmatchcase(path.name, pattern))

    def _entries(self) -> list[str]:
        open_filesystem(self.protocol).invalidate_cache()
        try:
            listed = self._call("ls", detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        start = f"{self._inner.rstrip('/')}/"
        names = (name.rstrip("/").removeprefix(start) for name in listed if name.startswith(start))
        return sorted(name for name in names if name and "/" not in name)

    # --- reading ---

    def read_bytes(self) -> bytes:
        return cast(bytes, self._call("cat_file"))

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def read_range(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`, or to the end of the object."""
        return cast(bytes, self._call("cat_file", start=start, end=end)) if end > start else b""

    def _first_block(self) -> bytes:
        """The first block, which is all of a small object, in one request."""
        fs = open_filesystem(self.protocol)

        def read() -> bytes:
            try:
                return cast(bytes, fs.cat_file(self._inner, start=0, end=BLOCK_BYTES))
            except Exception as error:
                if "InvalidRange" in str(error) or " 416 " in str(error):
                    return b""  # an empty object has no first byte to ask for
                raise

        return with_retries(self, read)

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open the object for reading; a large one is fetched in blocks on demand."""
        assert mode == "rb", "objects are written by AtomicFile"
        first = self._first_block()
        if len(first) < BLOCK_BYTES:
            return io.BytesIO(first)
        return io.BufferedReader(Ranges(self, self.stat().st_size), BLOCK_BYTES)

    # --- changing ---

    def upload(self, file: Path) -> None:
        """Upload a local file atomically: readers see the old object or the whole new one."""
        fs = open_filesystem(self.protocol)
        if self.protocol not in NO_FOLDERS:
            with_retries(self, lambda: fs.makedirs(self.parent._inner, exist_ok=True))
        self._write(lambda: fs.put_file(str(file), self._inner))

    def write_bytes(self, data: bytes) -> None:
        """Write a small object."""
        self._write(lambda: open_filesystem(self.protocol).pipe_file(self._inner, data))

    def _write(self, put: Callable[[], None]) -> None:
        def call() -> None:
            try:
                put()
            except FileNotFoundError as error:
                # the response to the end of a multipart upload was lost, so it was sent twice
                if "NoSuchUpload" in str(error):
                    raise ConnectionError("the multipart upload was lost") from error
                raise

        try:
            with_retries(self, call)
        except FileNotFoundError as error:
            raise StoreFailed(str(self), NO_BUCKET) from error

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self._call("rm_file")
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_tree(self) -> None:
        """Remove everything below."""
        fs, names = open_filesystem(self.protocol), [path._inner for path in self.files()]
        if names:
            with suppress(FileNotFoundError):  # removed by an earlier try
                with_retries(self, lambda: fs.rm(names))

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a prefix exists as long as an object has it."""


class Ranges(io.RawIOBase):
    """An object as a raw stream of ranged reads."""

    def __init__(self, path: ObjectPath, size: int) -> None:
        self._path, self._size, self._at = path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        data = self._path.read_range(self._at, end)
        if len(data) != max(0, end - self._at):
            raise StoreFailed(str(self._path), "the object changed while it was read")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def readall(self) -> bytes:
        data = self._path.read_range(self._at, self._size)
        self._at = max(self._at, self._size)
        return data
