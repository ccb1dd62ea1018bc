"""Thumbnails of the shown pairs, in chunks of a few that the page loads when they come into view.

A chunk is named by a hash of what it is drawn from. A chunk that exists is kept, so only the pictures
of new or changed shards are drawn again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.object_store import in_process
from stylear.curate.corpus.shards import read_shard
from stylear.curate.engine import LOCAL
from stylear.curate.report.explorer.chunks import write_pictures
from stylear.curate.report.pictures import QUALITY, THUMBNAIL_PX, decode_image, encode_thumbnail

if TYPE_CHECKING:
    from stylear.curate.references import StyleReference
    from stylear.curate.report.explorer.rows import ExplorerRows
    from stylear.curate.report.facts import Facts

PICTURES = 32  # of a chunk (our choice): 150 to 250 kB
PREFIX = "pictures-"
MANY = 2000  # missing pictures, from which on several processes draw them (our choice)
UNREADABLE = ""  # in place of a picture


@dataclass(frozen=True, slots=True)
class PictureChunk:
    """A chunk that is to be drawn: its name and the rows of one shard."""

    name: str
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PictureShard:
    """The chunks of one shard that are missing."""

    tar: Path
    chunks: tuple[PictureChunk, ...]


def write_pair_pictures(
    facts: Facts, rows: ExplorerRows, folder: Path, existing: Collection[str]
) -> tuple[list[str], NDArray[np.int32]]:
    """Write the chunks that are not among `existing` ones; returns the names of all and each pair's picture.

    -1 stands for no image.    Picture p is number p % PICTURES of chunk p // PICTURES.
    """
    names: list[str] = []
    numbers = np.full(len(rows), -1, np.int32)
    missing: list[PictureShard] = []
    images = facts.pairs.image[rows.indices]
    for shard in rows.shards:
        ids = images[shard.start : shard.start + len(shard.rows)]
        with_image = np.flatnonzero(ids != b"")
        chunks = []
        for start in range(0, len(with_image), PICTURES):
            part = with_image[start : start + PICTURES]
            numbers[shard.start + part] = len(names) * PICTURES + np.arange(len(part))
            names.append(name_chunk(ids[part].tobytes()))
            if names[-1] not in existing:
                chunks.append(PictureChunk(names[-1], tuple(shard.rows[part].tolist())))
        if chunks:
            tar = facts.corpus / shard.kind / f"{shard.unit}.tar"
            missing.append(PictureShard(tar, tuple(chunks)))
    count = sum(len(chunk.rows) for shard in missing for chunk in shard.chunks)
    workers = 0 if count > MANY and not in_process(facts.corpus) else 1
    for _ in LOCAL.map_units(partial(shard_drawer, folder), missing, len(missing), workers):
        pass
    return names, numbers


def name_chunk(source: bytes) -> str:
    """The name of a chunk of pictures that are drawn from these bytes or hashes."""
    settings = f"{THUMBNAIL_PX} {QUALITY} ".encode()
    return PREFIX + hashlib.sha256(settings + source).hexdigest()[:24]


def shard_drawer(folder: Path) -> Callable[[PictureShard], None]:
    """The function that draws the missing chunks of one shard."""
    return partial(draw_shard, folder)


def draw_shard(folder: Path, shard: PictureShard) -> None:
    """Draw the missing chunks of a shard. Raises CorpusError for an image that has another hash."""
    chunk_of = {row: chunk.name for chunk in shard.chunks for row in chunk.rows}
    drawn: dict[str, list[str]] = {}
    for row, pair in enumerate(read_shard(shard.tar)):
        if row in chunk_of:
            drawn.setdefault(chunk_of[row], []).append(draw_thumbnail(pair.image))
    for name, pictures in drawn.items():
        write_pictures(folder, name, pictures)


def draw_thumbnail(data: bytes) -> str:
    """A thumbnail in base64; empty for bytes that are not an image."""
    picture = decode_image(data)
    return UNREADABLE if picture is None else encode_thumbnail(picture)


def write_reference_pictures(
    references: Sequence[StyleReference], folder: Path, existing: Collection[str], first: int
) -> tuple[list[str], dict[str, int]]:
    """Write chunks of the style references; returns their names and the picture of each id."""
    names: list[str] = []
    numbers: dict[str, int] = {}
    for start in range(0, len(references), PICTURES):
        part = references[start : start + PICTURES]
        name = name_chunk("".join(reference.sha256 for reference in part).encode())
        if name not in existing:
            write_pictures(folder, name, [draw_thumbnail(style.image) for style in part])
        place = (first + len(names)) * PICTURES
        numbers |= {style.id: place + number for number, style in enumerate(part)}
        names.append(name)
    return names, numbers
