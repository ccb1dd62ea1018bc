"""The texture score: compares strokes and colours with the style reference, without weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stylear.curate.score.scorer import Context, MeasuredShard, Scorer
from stylear.curate.score.table import float_column
from stylear.encoders.texture import PREPROCESSING, VERSION, texture_descriptor, texture_similarity

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image


class TextureFeature:
    """The texture descriptor (F,) of an image."""

    name = "texture"
    batch_size = 64  # has no effect: each image is described alone

    def prepare(self, image: Image.Image) -> Tensor:
        return texture_descriptor(image)

    def measure(self, prepared: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(prepared))


class TextureScorer(Scorer):
    """Similarity with the style reference; null for raw pairs."""

    kinds = ("stylized",)

    def __init__(self, spec: Any, context: Context) -> None:
        super().__init__(spec, context)
        self.texture = TextureFeature()
        self.features = (self.texture,)

    @classmethod
    def fingerprint_parts(cls, spec: Any) -> tuple[str, ...]:
        return (str(VERSION),)

    def metadata(self) -> dict[str, Any]:
        return super().metadata() | {"preprocessing": PREPROCESSING}

    def columns(self, shard: MeasuredShard) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        values: list[float | None] = [None] * len(shard.pairs)
        for index, row in shard.rows(self.texture).items():
            if shard.pairs[index].origin.reference is not None:
                other = self.context.reference_row(shard.pairs[index], self.texture)
                values[index] = float(texture_similarity(row, other))
        return {self.spec.name: float_column(values)}, {}
