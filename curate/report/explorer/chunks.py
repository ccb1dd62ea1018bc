"""Chunks of data that the explorer's page loads when it needs them.

A page opened from a disk may not fetch files, but it may add scripts. A chunk is therefore a script of
one call, `addChunk(NAME, DATA)`. Its data is gzip in base64, so no caption, URL or reason can end the
script or the string, whatever it holds; the page unpacks it by itself.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.storage import write_text

DATA = "data"  # the folder beside the page
LEVEL = 6  # of gzip (our choice)
MAX_SAFE_INTEGER = 2**53 - 1  # of JSON in a browser


def chunk_path(folder: Path, name: str) -> Path:
    """The file of a chunk of the report in `folder`."""
    return folder / DATA / f"{name}.js"


def write_json_chunk(folder: Path, name: str, value: Any) -> None:
    """Write a chunk of a JSON value."""
    text = json.dumps(make_json(value), separators=(",", ":"), allow_nan=False)
    write_chunk(folder, name, text.encode("ascii"))


def write_array_chunk(folder: Path, name: str, columns: list[NDArray[Any]]) -> None:
    """Write a chunk of columns of 4-byte numbers, little-endian, one after the other."""
    write_chunk(
        folder,
        name,
        b"".join(np.ascontiguousarray(c, c.dtype.newbyteorder("<")).tobytes() for c in columns),
    )


def write_chunk(folder: Path, name: str, data: bytes) -> None:
    """Write a chunk of bytes."""
    packed = base64.b64encode(gzip.compress(data, LEVEL, mtime=0)).decode("ascii")
    write_text(chunk_path(folder, name), f'addChunk("{name}","{packed}");\n')


def write_pictures(folder: Path, name: str, pictures: list[str]) -> None:
    """Write a chunk of base64 pictures; they are compressed as they are."""
    listed = ",".join(f'"{picture}"' for picture in pictures)
    write_text(chunk_path(folder, name), f'addChunk("{name}",[{listed}]);\n')


def make_json(value: Any) -> Any:
    """A value whose numbers a browser reads exactly: large integers and NaN become text."""
    if isinstance(value, dict):
        return {name: make_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [make_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) > MAX_SAFE_INTEGER:
        return str(value)
    return value
