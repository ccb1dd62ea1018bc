"""The aesthetic score: how people would rate an image, predicted from its CLIP embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from stylear.curate.score.clip import ClipScorer
from stylear.curate.score.scorer import Context, MeasuredShard
from stylear.curate.score.table import float_column
from stylear.encoders.aesthetic import HEAD, AestheticHead
from stylear.weights.files import hash_path
from stylear.weights.names import resolve_file

if TYPE_CHECKING:
    import pyarrow as pa


class AestheticScorer(ClipScorer):
    """A linear head over the image embedding, which clip-text and clip-image share."""

    def __init__(self, spec: Any, context: Context) -> None:
        super().__init__(spec, context)
        embed_dim = self.clip.embed_texts([""]).shape[-1]
        self.head = AestheticHead.open(self.spec.head, embed_dim)

    @classmethod
    def fingerprint_parts(cls, spec: Any) -> tuple[str, ...]:
        return (*super().fingerprint_parts(spec), hash_path(resolve_file(spec.head, HEAD)))

    def metadata(self) -> dict[str, Any]:
        head = {"head": self.head.name, "head_sha256": self.head.weights_sha256}
        return super().metadata() | head

    def columns(self, shard: MeasuredShard) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        images = shard.rows(self.images)
        values: list[float | None] = [None] * len(shard.pairs)
        if images:
            ratings = self.head.rate(torch.stack(list(images.values())))
            for index, value in zip(images, ratings.tolist(), strict=True):
                values[index] = value
        return {self.spec.name: float_column(values)}, {}
