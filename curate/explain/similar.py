"""Pairs that look like a picture: by its perceptual hash and its colours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stylear.curate.corpus.columns import Indices
from stylear.curate.corpus.layout import KINDS, RECIPE, ShardKind, score_path
from stylear.curate.corpus.ledger import ALL, Ledger
from stylear.curate.corpus.looks import DISTANCE, Look
from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.shards import read_shard
from stylear.curate.fetch.ingest import ImageRejected, convert_image
from stylear.curate.filter.gather import find_phash_name
from stylear.curate.recipe import load_recipe
from stylear.curate.score import COLOUR
from stylear.curate.stage import STAGE_OF_KIND
from stylear.errors import SourceError

if TYPE_CHECKING:
    from stylear.curate.recipe import ImageSettings


def hash_image_file(file: Path, settings: ImageSettings) -> Look:
    """Hash an image file after converting it as fetch does. Raises SourceError if it is not an image."""
    try:
        return Look.of_image(convert_image(file.read_bytes(), settings).data)
    except OSError as error:
        raise SourceError(f"{file}: expected an image, found: {error.strerror or error}") from error
    except ImageRejected as rejection:
        raise SourceError(f"{file}: expected an image, found: {rejection}") from rejection


def find_similar(
    corpus: Path, look: Look, distance: int = DISTANCE
) -> Iterator[tuple[ShardKind, str, Indices]]:
    """(kind, unit, rows) of the pairs that look like a picture, shard by shard.

    The corpus's own hashes are used; the images of a shard without them are read.
    """
    for kind, unit, looks in read_looks(corpus):
        near = [
            row
            for row, row_look in enumerate(looks)
            if row_look and look.is_near(row_look, distance)
        ]
        yield kind, unit, np.array(near, np.int64)


def read_looks(corpus: Path) -> Iterator[tuple[ShardKind, str, list[Look | None]]]:
    """The perceptual hash of each pair, shard by shard; None without an image."""
    ledger, name = Ledger(corpus), find_phash_name(load_recipe(corpus / RECIPE))
    hashed = set(ledger.units(f"score.{name}"))
    for kind in KINDS:
        for unit in ledger.units(STAGE_OF_KIND[kind]):
            if unit == ALL:
                continue
            if f"{kind}-{unit}" in hashed:
                table = read_table(score_path(corpus, name, kind, int(unit)), [name, COLOUR])
                hashes = zip(table[name].to_pylist(), table[COLOUR].to_pylist(), strict=True)
                looks = [Look(a, b) if a and b else None for a, b in hashes]
            else:
                pairs = read_shard(corpus / kind / f"{unit}.tar")
                looks = [Look.of_image(pair.image) if pair.image else None for pair in pairs]
            yield kind, unit, looks
