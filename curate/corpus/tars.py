"""Reproducible tars: USTAR members with fixed headers, so the same members give the same bytes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from stylear.curate.corpus.storage import AtomicFile, FileInfo
from stylear.errors import CorpusError

BLOCK = tarfile.BLOCKSIZE
RECORD = tarfile.RECORDSIZE  # a tar is padded to a multiple of it
ZEROS = bytes(BLOCK)

# The parts of a USTAR header that are the same in every member.
BEFORE_SIZE = b"0000644\x00" + 2 * b"0000000\x00"  # mode; owner and group
TIME = b"\x00" + 11 * b"0" + b"\x00"  # behind the size
AFTER_SUM = b"0" + bytes(100) + b"ustar\x0000" + bytes(64 + 8 + 8 + 167)  # no names, no device
HEADER_SUM = sum(BEFORE_SIZE + TIME + AFTER_SUM) + 8 * ord(" ")  # the sum counts itself as spaces
Bytes = bytes | memoryview


def encode_sample(
    key: str, ext: str, image: Bytes, caption: bytes, record: bytes
) -> tuple[Bytes, ...]:
    """Encode a pair as its three members: image, caption and row. `key` is plain ASCII."""
    stem = key.encode()
    return (
        *encode_member(stem + b"." + ext.encode(), image),
        *encode_member(stem + b".txt", caption),
        *encode_member(stem + b".json", record),
    )


def encode_member(name: bytes, data: Bytes) -> tuple[Bytes, ...]:
    """Encode a member: its header, its data and the padding to a full block."""
    return encode_header(name, len(data)), data, ZEROS[: -len(data) % BLOCK]


def encode_header(name: bytes, size: int) -> bytes:
    """Encode a USTAR header (mode 0644, owner 0, time 0) as `tarfile` does, in a tenth of its time."""
    octal = b"%011o" % size
    if len(name) > 100 or len(octal) > 11 or not name.isascii():
        member = tarfile.TarInfo(name.decode())
        member.size, member.mode, member.mtime = size, 0o644, 0
        return member.tobuf(tarfile.USTAR_FORMAT)
    checksum = b"%06o\0 " % (HEADER_SUM + sum(name) + sum(octal))
    return b"".join((name.ljust(100, b"\0"), BEFORE_SIZE, octal, TIME, checksum, AFTER_SUM))


def finish_tar(out: AtomicFile) -> None:
    """Write the end of a tar: two empty blocks and the padding to a full record."""
    out.write(2 * ZEROS)
    out.write(b"\0" * (-out.bytes % RECORD))


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> FileInfo:
    """Write a tar of other members than a pair's (preference pairs), reproducibly and atomically."""
    with AtomicFile(path, md5=True) as out:
        for name, data in members:
            out.write(*encode_member(name.encode(), data))
        finish_tar(out)
    return out.info


def locate_samples(
    path: Path, file: IO[bytes], samples: Iterable[tuple[bytes, int]]
) -> Iterator[tuple[int, int]]:
    """Find (offset, size) of each sample, given its key and the bytes after its image, in an open tar.

    Only the headers of the images are read; `path` is for errors. Raises CorpusError if the tar has other
    samples or is truncated.
    """
    try:
        offset, end = 0, file.seek(0, io.SEEK_END)
        for key, behind in samples:
            file.seek(offset)
            header = file.read(BLOCK)
            if not header.startswith(key + b"."):
                raise ValueError(f"no image of {key.decode()} at byte {offset}")
            size = BLOCK + padded_size(parse_size(header)) + behind
            if offset + size > end:
                raise ValueError(f"the end of the file inside {key.decode()}")
            yield offset, size
            offset += size
        file.seek(offset)
        if file.read(BLOCK) != ZEROS:
            raise ValueError(f"more data at byte {offset}")
    except (OSError, ValueError) as error:
        raise CorpusError(
            f"{path}: expected the samples of its table, found: {error}",
            hint="the file was changed or damaged; `stylear curate run RECIPE --out CORPUS` rebuilds it",
        ) from error


def parse_sample(data: bytes) -> tuple[memoryview, bytes]:
    """Split the bytes of a sample into image and record. Raises ValueError if they are not a sample."""
    image = parse_size(data)
    caption = BLOCK + padded_size(image)  # offsets of the headers
    record = caption + BLOCK + padded_size(parse_size(data, caption))
    size = parse_size(data, record)
    if record + BLOCK + padded_size(size) != len(data):
        raise ValueError("an incomplete sample")
    return memoryview(data)[BLOCK : BLOCK + image], data[record + BLOCK : record + BLOCK + size]


def parse_size(data: bytes, header: int = 0) -> int:
    """The size in a member's header. Raises ValueError if there is none."""
    return int(data[header + 124 : header + 135], 8)


def padded_size(size: int) -> int:
    """The size of `size` bytes with padding."""
    return size + -size % BLOCK
