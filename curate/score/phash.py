"""The perceptual hash, in which near duplicates differ by few bits, and the mean colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stylear.curate.corpus.looks import compute_phash, quarter_colours
from stylear.curate.score.scorer import Context, MeasuredShard, Scorer
from stylear.curate.score.table import COLOUR, string_column

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image


class PhashFeature:
    """(phash, colours of the quarters) of an image."""

    name = "phash"
    batch_size = 64  # has no effect: each image is hashed alone

    def prepare(self, image: Image.Image) -> tuple[str, str]:
        pixels = np.asarray(image)
        return compute_phash(pixels), quarter_colours(pixels)

    def measure(self, prepared: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        return list(prepared)


class PhashScorer(Scorer):
    """A 64-bit perceptual hash, as 16 hex digits, and the colours of the four quarters."""

    def __init__(self, spec: Any, context: Context) -> None:
        super().__init__(spec, context)
        self.hashes = PhashFeature()
        self.features = (self.hashes,)

    def metadata(self) -> dict[str, Any]:
        return super().metadata() | {"preprocessing": "grey, 32 px, 8x8 DCT"}

    def columns(self, shard: MeasuredShard) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        hashes = shard.rows(self.hashes)
        hash_pairs = [hashes.get(index, (None, None)) for index in range(len(shard.pairs))]
        columns = {
            self.spec.name: string_column(phash for phash, _ in hash_pairs),
            COLOUR: string_column(colour for _, colour in hash_pairs),
        }
        return columns, {}
