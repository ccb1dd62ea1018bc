"""Tars of USTAR members with pinned headers, so that the same members are the same bytes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from stylear.curate.corpus.storage import AtomicFile, FileInfo
from stylear.errors import CorpusError

BLOCK = tarfile.BLOCKSIZE
ZEROS = bytes(BLOCK)
MEMBERS = 3  # of a sample: the image, the caption, the row

# The parts of a USTAR header that are the same in every member.
BEFORE_SIZE = b"0000644\x00" + 2 * b"0000000\x00"  # mode; owner and group
TIME = b"\x00" + 11 * b"0" + b"\x00"  # behind the size
AFTER_SUM = b"0" + bytes(100) + b"ustar\x0000" + bytes(64 + 8 + 8 + 167)  # no names, no device
HEADER_SUM = sum(BEFORE_SIZE + TIME + AFTER_SUM) + 8 * ord(" ")  # the sum counts itself as spaces
Bytes = bytes | memoryview


def encode_sample(
    key: str, ext: str, image: Bytes, caption: bytes, record: bytes
) -> tuple[Bytes, ...]:
    """The three members of a pair, `key` being plain ASCII: its image, its caption and its row."""
    stem = key.encode()
    return (
        *encode_member(stem + b"." + ext.encode(), image),
        *encode_member(stem + b".txt", caption),
        *encode_member(stem + b".json", record),
    )


def encode_member(name: bytes, data: Bytes) -> tuple[Bytes, ...]:
    """One regular file of a tar: its header, its data and the padding to a whole block."""
    return encode_header(name, len(data)), data, ZEROS[: -len(data) % BLOCK]


def encode_header(name: bytes, size: int) -> bytes:
    """The header as `tarfile` makes it: USTAR, mode 0644, owner 0, time 0; this takes a tenth of its time."""
    octal = b"%011o" % size
    if len(name) > 100 or len(octal) > 11 or not name.isascii():
        member = tarfile.TarInfo(name.decode())
        member.size, member.mode, member.mtime = size, 0o644, 0
        return member.tobuf(tarfile.USTAR_FORMAT)
    checksum = b"%06o\0 " % (HEADER_SUM + sum(name) + sum(octal))
    return b"".join((name.ljust(100, b"\0"), BEFORE_SIZE, octal, TIME, checksum, AFTER_SUM))


def finish_tar(out: AtomicFile) -> None:
    """The two empty blocks and the padding to a whole record that end a tar."""
    out.write(2 * ZEROS)
    out.write(b"\0" * (-out.bytes % tarfile.RECORDSIZE))


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> FileInfo:
    """A tar of other members than a pair's (preference pairs), as reproducible and as atomic."""
    with AtomicFile(path, md5=True) as out:
        for name, data in members:
            out.write(*encode_member(name.encode(), data))
        finish_tar(out)
    return out.info


def locate_samples(
    path: Path, file: IO[bytes], samples: Iterable[tuple[bytes, int]]
) -> Iterator[tuple[int, int]]:
    """(offset, bytes) of each sample of (key, bytes behind the image) in the tar in `file`, called `path`.

    Only the headers of the images are read. Raises CorpusError where the tar has other samples, and
    where it is cut off.
    """
    try:
        place, end = 0, file.seek(0, io.SEEK_END)
        for key, behind in samples:
            file.seek(place)
            header = file.read(BLOCK)
            if not header.startswith(key + b"."):
                raise ValueError(f"no image of {key.decode()} at byte {place}")
            size = BLOCK + padded_size(parse_size(header)) + behind
            if place + size > end:
                raise ValueError(f"an end inside {key.decode()}")
            yield place, size
            place += size
        file.seek(place)
        if file.read(BLOCK) != ZEROS:
            raise ValueError(f"more at byte {place}")
    except (OSError, ValueError) as error:
        raise CorpusError(
            f"{path}: expected the samples of its table, found: {error}",
            hint="the file was changed or damaged; `stylear curate run RECIPE --out CORPUS` rebuilds it",
        ) from error


def parse_sample(data: bytes) -> tuple[memoryview, bytes]:
    """The image and the record of a sample as it stands in a tar. Raises ValueError when it is none."""
    image = parse_size(data)
    caption = BLOCK + padded_size(image)  # where the headers lie
    record = caption + BLOCK + padded_size(parse_size(data, caption))
    size = parse_size(data, record)
    if record + BLOCK + padded_size(size) != len(data):
        raise ValueError("no whole sample")
    return memoryview(data)[BLOCK : BLOCK + image], data[record + BLOCK : record + BLOCK + size]


def parse_size(data: bytes, header: int = 0) -> int:
    """The size of a member that its header tells. Raises ValueError when it tells none."""
    return int(data[header + 124 : header + 135], 8)


def padded_size(size: int) -> int:
    """Bytes that `size` bytes take with their padding."""
    return size + -size % BLOCK
