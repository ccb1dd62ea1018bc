"""Reads the members of a tar, plain or gzipped, or of several concatenated tars; writes nothing."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from stylear.errors import SourceError

BLOCK = tarfile.BLOCKSIZE
MIN_READ = 4_000_000  # bytes per read that are always allowed, even if a member may have fewer
MAX_PADDING = 1 << 26  # zeros between two tars, or after the last
MAX_REWOUND = 1 << 32  # bytes of a gzipped tar that may be unpacked again to follow hard links
GZIP = b"\x1f\x8b"
OTHER_FILES = (  # first bytes of files that are mistaken for a tar
    (b"PK\x03\x04", "a zip archive; unpack it and give the folder"),
    (b"(\xb5/\xfd", "compressed with zstd; unpack it first"),
    (b"BZh", "compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ\0", "compressed with xz; unpack it first"),
    (b"PAR1", "a Parquet file; give it as a list (type: urls)"),
    (b"version https://git-lfs", "a pointer of git-lfs; run `git lfs pull` where it was cloned"),
    (b"<", "a web page or XML; download it again"),
)


class TarReader:
    """Reads a tar member by member, in order: `with TarReader(path, max_bytes) as tar: for member in tar`.

    Raises SourceError for a file that is not a tar, is damaged, or ends within a member.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path, self.max_bytes = path, max_bytes
        self.is_closed = True  # whether the tar has its end block
        self._targets: dict[str, tarfile.TarInfo] | None = None
        self._rewound = 0

    def __enter__(self) -> TarReader:
        try:
            with self.path.open("rb") as file:
                start = file.read(32)
            self._is_packed = start.startswith(GZIP)
            opener: Any = gzip.open if self._is_packed else open
            self._raw: IO[bytes] = opener(self.path, "rb")
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be read: {error}") from error
        self._file = _Bounded(self._raw, self.max_bytes)
        self._start = start
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        try:
            offset: int | None = 0
            while offset is not None:
                self._file.seek(offset)
                tar = tarfile.open(fileobj=cast("IO[bytes]", self._file), mode="r:")  # noqa: SIM115
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # the index of a large tar is not kept
                    yield member
                offset = self._find_next_tar(tar.offset)
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise self._damaged_error(error) from error

    def read(self, member: tarfile.TarInfo, limit: int) -> bytes:
        """The first `limit` bytes of a member. Raises SourceError when the file ends before."""
        size = min(member.size, limit)
        try:
            self._file.seek(member.offset_data)
            data = self._file.read(size)
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise self._damaged_error(error) from error
        if len(data) < size:
            raise self._damaged_error(tarfile.ReadError(f"{member.name} is cut off"))
        return data

    def find_link_target(self, link: tarfile.TarInfo) -> tarfile.TarInfo | None:
        """The member that a hard link names; None if there is none."""
        if self._targets is None:
            with TarReader(self.path, self.max_bytes) as other:
                self._targets = {member.name: member for member in other if member.isreg()}
        target = self._targets.get(link.linkname)
        if target is not None and self._is_packed:  # seeking back unpacks everything again
            self._rewound += target.offset_data
            if self._rewound > MAX_REWOUND:
                raise SourceError(
                    f"{self.path}: its hard links need more than {MAX_REWOUND:,} bytes unpacked again",
                    hint="unpack the .gz first: links in plain tars cost nothing",
                )
        return target

    def _find_next_tar(self, offset: int) -> int | None:
        """The offset of the next tar after the end block at `offset`; None at the end of the file.

        tarfile takes any damage between members for the end; the real end is a block of zeros. A file that
        stops without one after a complete member clears `is_closed`.
        """
        self._file.seek(offset)
        block = self._file.read(BLOCK)
        if not block and offset > 0:
            self.is_closed = False
            return None
        if block != bytes(BLOCK):
            raise SourceError(
                f"{self.path}: expected the end of the tar at byte {offset}, found damage",
                hint="the file is cut off or corrupt; replace it, or set on_bad_shard: skip",
            )
        end = offset + MAX_PADDING
        while offset < end:
            offset += BLOCK
            block = self._file.read(BLOCK)
            if not block:
                return None
            if block.count(0) < len(block):
                if not _is_header(block):
                    raise SourceError(
                        f"{self.path}: expected nothing or another tar after the end of the tar, found"
                        f" other bytes at {offset}",
                        hint="the file is corrupt; replace it, or set on_bad_shard: skip",
                    )
                return offset
        raise SourceError(f"{self.path}: more than {MAX_PADDING:,} zeros after the end of the tar")

    def _damaged_error(self, error: Exception) -> SourceError:
        what = next((what for magic, what in OTHER_FILES if self._start.startswith(magic)), None)
        if not self._start:
            what = "a file of 0 bytes"
        return SourceError(
            f"{self.path}: expected a complete tar, found {what}"
            if what
            else f"{self.path}: expected a complete tar: {error}",
            hint="replace the file, or set on_bad_shard: skip",
        )


class _Bounded:
    """A file that refuses long reads, as tarfile trusts the size in an extension header."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self._file, self._most = file, max(max_bytes, MIN_READ)
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        """At most `size` bytes. Raises tarfile.ReadError if that exceeds the limit of a member."""
        if size > self._most + tarfile.RECORDSIZE:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def _is_header(block: bytes) -> bool:
    """Whether a block begins a member: its checksum says so."""
    try:
        tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
