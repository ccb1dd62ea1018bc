"""Looks: the perceptual hash and the colours of a picture, and the pairs of a corpus that look like it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stylear.curate.corpus.columns import Places
from stylear.curate.corpus.layout import KINDS, RECIPE, ShardKind, score_path
from stylear.curate.corpus.ledger import ALL, Ledger
from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.shards import read_shard
from stylear.curate.fetch.ingest import Refusal, store
from stylear.curate.filter.gather import phash_name
from stylear.curate.filter.groups import COLOUR_DISTANCE
from stylear.curate.recipe import load_recipe
from stylear.curate.score import COLOUR
from stylear.curate.stage import STAGE_OF_KIND
from stylear.errors import SourceError

if TYPE_CHECKING:
    from stylear.curate.recipe import ImageSettings

DISTANCE = 4  # bits (ours, the filter's default)


@dataclass(frozen=True, slots=True)
class Look:
    """What a picture looks like: 64 bits of perceptual hash, and the mean RGB of its four quarters."""

    phash: str  # 16 hex digits
    colour: str  # 24 hex digits

    @classmethod
    def of_file(cls, file: Path, settings: ImageSettings) -> Look:
        """Of an image file, stored as the corpus stores its pictures. Raises SourceError for another file."""
        try:
            return cls.of_image(store(file.read_bytes(), settings).data)
        except Refusal as refusal:
            raise SourceError(f"{file}: expected an image, found: {refusal}") from refusal

    @classmethod
    def of_image(cls, data: bytes) -> Look:
        """Of a stored image."""
        from PIL import Image

        from stylear.curate.score.phash import compute_phash, quarter_colours

        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("RGB"))
        return cls(compute_phash(pixels), quarter_colours(pixels))

    def is_near(self, other: Look, distance: int) -> bool:
        """Whether two pictures are near duplicates, as the filter has it."""
        bits = (int(self.phash, 16) ^ int(other.phash, 16)).bit_count()
        levels = zip(bytes.fromhex(self.colour), bytes.fromhex(other.colour), strict=True)
        return bits <= distance and all(abs(a - b) <= COLOUR_DISTANCE for a, b in levels)


def find_similar(
    corpus: Path, look: Look, distance: int = DISTANCE
) -> Iterator[tuple[ShardKind, str, Places]]:
    """(kind, unit, rows) of the pairs that look like a picture, shard by shard.

    The hashes are those of the corpus; where a shard has none yet, its images are read.
    """
    for kind, unit, looks in read_looks(corpus):
        near = [row for row, one in enumerate(looks) if one and look.is_near(one, distance)]
        yield kind, unit, np.array(near, np.int64)


def read_looks(corpus: Path) -> Iterator[tuple[ShardKind, str, list[Look | None]]]:
    """What each pair of each committed shard looks like; None without an image."""
    ledger, name = Ledger(corpus), phash_name(load_recipe(corpus / RECIPE))
    hashed = set(ledger.units(f"score.{name}"))
    for kind in KINDS:
        for unit in ledger.units(STAGE_OF_KIND[kind]):
            if unit == ALL:
                continue
            if f"{kind}-{unit}" in hashed:
                table = read_table(score_path(corpus, name, kind, int(unit)), [name, COLOUR])
                both = zip(table[name].to_pylist(), table[COLOUR].to_pylist(), strict=True)
                looks = [Look(a, b) if a and b else None for a, b in both]
            else:
                pairs = read_shard(corpus / kind / f"{unit}.tar")
                looks = [Look.of_image(pair.image) if pair.image else None for pair in pairs]
            yield kind, unit, looks
