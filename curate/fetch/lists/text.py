"""Reads untrusted text files: byte order marks are obeyed, and no byte is silently replaced."""

from __future__ import annotations

import codecs
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from stylear.errors import SourceError

MAX_LINE = 1 << 25  # characters of one line: a small .gz can hold an endless one
MARKS = (  # longest first: the mark of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
GZIP = b"\x1f\x8b"


def detect_encoding(start: bytes, declared: str | None) -> str:
    """The encoding by the byte order mark, or else the declared one, or UTF-8."""
    marked = next((name for mark, name in MARKS if start.startswith(mark)), None)
    return marked or declared or "utf-8"


def decode_bytes(data: bytes, declared: str | None = None) -> str | None:
    """Decode bytes; None if they do not fit the encoding of their mark or `declared`."""
    try:
        return data.decode(detect_encoding(data[:4], declared))
    except (UnicodeDecodeError, LookupError):
        return None


def open_binary(path: Path) -> IO[bytes]:
    """Open a file, decompressed if its first bytes are gzip's, whatever its ending."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    opener: Any = gzip.open if packed else open
    stream: IO[bytes] = opener(path, "rb")
    return stream


def read_lines(
    path: Path, encoding: str | None = None, *, newline: str | None = ""
) -> Iterator[tuple[int, str]]:
    """Read (number from 1, line with its ending) as `open(newline=...)` splits them.

    Raises SourceError naming the line that is not in the file's encoding, or is too long.
    """
    import io

    with open_binary(path) as binary:
        start = binary.read(4)
        name = detect_encoding(start, encoding)
        binary.seek(0)
        try:
            # undecodable bytes become surrogates, so that the line that holds them can be named
            errors = "surrogateescape" if name.startswith("utf-8") else "strict"
            file = io.TextIOWrapper(binary, encoding=name, errors=errors, newline=newline)
        except LookupError as error:
            raise SourceError(
                f"{path}: unknown encoding {name!r}",
                hint="for example encoding: utf-8, latin-1 or cp1252",
            ) from error
        number = 0
        try:
            while line := file.readline(MAX_LINE):
                number += 1
                if len(line) == MAX_LINE:
                    raise SourceError(
                        f"{path}, line {number}: expected lines of fewer than {MAX_LINE:,} characters"
                    )
                if not line.isascii() and (bad := find_undecodable(line)) is not None:
                    raise not_in_encoding(path, number, "UTF-8", bad)
                yield number, line
        except UnicodeError as error:
            raise not_in_encoding(path, number + 1, name, str(error)) from error
        finally:
            file.detach()


def find_undecodable(line: str) -> str | None:
    """The first byte that could not be decoded, as 0xNN."""
    return next((f"0x{ord(c) - 0xDC00:02x}" for c in line if "\udc80" <= c <= "\udcff"), None)


def not_in_encoding(path: Path, line: int, encoding: str, what: str) -> SourceError:
    return SourceError(
        f"{path}, line {line}: expected {encoding} text, found {what}",
        hint="name the encoding in the recipe, e.g. encoding: cp1252 (Windows) or latin-1,"
        " or convert the file to UTF-8",
    )
