"""PNG files chunk by chunk: removes text before decoding, and completes truncated files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
MAX_TEXT_BYTES = 8_000_000  # of one text chunk, unpacked: a ComfyUI workflow has some 100 kB
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
ADAM7 = (  # of an interlaced file's seven passes: first column, first row, and the steps of both
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


class Chunk(NamedTuple):
    """One chunk; `end` is where the next one starts."""

    kind: bytes
    body: bytes
    start: int
    end: int


def read_chunks(data: bytes) -> Iterator[Chunk]:
    """The complete chunks of a PNG, in order, up to a truncation. Checksums are not compared."""
    at = len(SIGNATURE) if data.startswith(SIGNATURE) else len(data)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            return
        yield Chunk(kind, data[at + 8 : end - 4], at, end)
        at = end


def strip_text(data: bytes) -> bytes:
    """Remove the text chunks, as Pillow refuses files whose texts are long or damaged."""
    kept, after = [], 0
    for chunk in read_chunks(data):
        if chunk.kind in TEXT_CHUNKS:
            kept.append(data[after : chunk.start])
            after = chunk.end
    return data if not kept else b"".join([*kept, data[after:]])


def read_texts(data: bytes) -> dict[str, str]:
    """{keyword: text} of the text chunks; the first of a keyword wins, unreadable ones are left out."""
    texts: dict[str, str] = {}
    for chunk in read_chunks(data):
        if chunk.kind in TEXT_CHUNKS:
            try:
                keyword, text = _read_text(chunk)
            except (zlib.error, ValueError):
                continue
            texts.setdefault(keyword, text)
    return texts


def _read_text(chunk: Chunk) -> tuple[str, str]:
    """Keyword and text of one chunk. Raises ValueError or zlib.error for a damaged or oversized one."""
    keyword, payload = chunk.body.split(b"\0", 1)
    if chunk.kind == b"tEXt":
        text = _latin1_or_utf8(payload[:MAX_TEXT_BYTES])
    elif chunk.kind == b"zTXt":
        text = _latin1_or_utf8(_inflate(payload[1:]))
    else:
        packed, payload = payload[:1] == b"\1", payload[2:]
        _language, _translated, body = payload.split(b"\0", 2)
        text = (_inflate(body) if packed else body[:MAX_TEXT_BYTES]).decode("utf-8")
    return keyword.decode("latin-1"), text


def _latin1_or_utf8(text: bytes) -> str:
    """The standard says Latin-1; most tools write UTF-8."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _inflate(packed: bytes) -> bytes:
    """Decompressed bytes. Raises ValueError when they exceed the limit of a text."""
    inflater = zlib.decompressobj()
    text = inflater.decompress(packed, MAX_TEXT_BYTES)
    if inflater.unconsumed_tail:
        raise ValueError("a text chunk above the size limit")
    return text


def complete_png(data: bytes) -> bytes | None:
    """Complete a truncated PNG with zeros for the missing pixels; None if it has no pixels.

    The caller has checked the number of pixels that the header declares.
    """
    head, packed, at = [], [], len(SIGNATURE)
    for chunk in read_chunks(data):
        at = chunk.end
        if chunk.kind == b"IDAT":
            packed.append(chunk.body)
        elif chunk.kind != b"IEND" and not packed:
            head.append(chunk)
    if data[at + 4 : at + 8] == b"IDAT":  # the chunk that is cut off
        packed.append(data[at + 8 :])
    if not head or head[0].kind != b"IHDR" or len(head[0].body) != 13 or not packed:
        return None
    size = _count_bytes(head[0].body)
    inflater = zlib.decompressobj()
    try:
        pixels = inflater.decompress(b"".join(packed), size) if size else b""
    except zlib.error:
        return None
    if not pixels:
        return None
    body = zlib.compress(pixels + bytes(size - len(pixels)), 1)
    chunks = [data[chunk.start : chunk.end] for chunk in head]
    return b"".join([SIGNATURE, *chunks, write_chunk(b"IDAT", body), write_chunk(b"IEND", b"")])


def write_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _count_bytes(header: bytes) -> int:
    """Bytes of all rows, each with its filter byte; 0 for an invalid header."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * CHANNELS.get(colour, 0)
    if not bits:
        return 0
    passes = [(width, height)]
    if interlaced:
        passes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in ADAM7]
    return sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in passes if columns > 0)
