"""CLIP scores: cosine of an image with its caption (clip-text) or its style reference (clip-image)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stylear.curate.score.batch_size import BatchHalver
from stylear.curate.score.device import resolve_device
from stylear.curate.score.reference import compute_reference_cosines, cosines
from stylear.curate.score.scorer import Context, MeasuredShard, Scorer
from stylear.curate.score.table import bool_column, float_column
from stylear.encoders.clip import ClipEncoder
from stylear.weights.files import hash_path
from stylear.weights.names import resolve_model

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image


def hash_model(name: str) -> str:
    """Hash all files of a CLIP (weights, config, tokenizer), or the checkpoint of ARCH/CHECKPOINT."""
    _, _, checkpoint = name.partition("/")
    if checkpoint and not Path(name).expanduser().exists():
        file = Path(checkpoint).expanduser()
        if file.is_file():
            return hash_path(file)
    return hash_path(resolve_model(name))


class ClipImageFeature:
    """The image embedding of a CLIP: (B, D) of length one."""

    def __init__(self, clip: ClipEncoder, spec: Any) -> None:
        self.clip, self.batch_size = clip, int(spec.batch_size)
        self.name = ("clip", spec.model, spec.device, spec.dtype, self.batch_size)

    def prepare(self, image: Image.Image) -> Tensor:
        return self.clip.preprocessor.resize(image)

    def measure(self, prepared: Sequence[Tensor]) -> Tensor:
        return self.clip.embed_images(self.clip.preprocessor.normalize(prepared))


class ClipScorer(Scorer):
    """The base class of scorers with a CLIP: opens the model and embeds images and texts."""

    def __init__(self, spec: Any, context: Context) -> None:
        super().__init__(resolve_device(spec), context)
        name = ("clip", self.spec.model, self.spec.device, self.spec.dtype)
        dtype: torch.dtype = getattr(torch, self.spec.dtype)
        self.clip = context.get_or_open(
            name, lambda: ClipEncoder.open(self.spec.model, self.spec.device, dtype)
        )
        self.images = ClipImageFeature(self.clip, self.spec)
        self.features = (self.images,)

    @classmethod
    def fingerprint_parts(cls, spec: Any) -> tuple[str, ...]:
        arch = spec.model.partition("/")[0]  # of ARCH/CHECKPOINT; the settings hold the rest
        return (arch, hash_model(spec.model))

    def metadata(self) -> dict[str, Any]:
        return {
            "model": self.clip.name,
            "weights_sha256": self.clip.weights_sha256,
            "dtype": self.spec.dtype,
            "preprocessing": self.clip.preprocessing,
        }

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (N, D) of texts, in batches, on the CPU."""
        halver = self.context.get_or_open(("halver", "texts", self.images.name), BatchHalver)
        size = self.spec.batch_size
        parts = [
            part
            for start in range(0, len(texts), size)
            for part in halver(self.clip.embed_texts, texts[start : start + size])
        ]
        return torch.cat(parts).cpu()


class ClipTextScorer(ClipScorer):
    """Cosine with the caption. Column `<name>.truncated`: the caption is longer than the model's context."""

    def columns(self, shard: MeasuredShard) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        images = shard.rows(self.images)
        captions = [shard.pairs[index].caption for index in images]
        distinct = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}
        exceeds = dict(zip(distinct, self.clip.exceeds_context(list(distinct)), strict=True))
        values: list[float | None] = [None] * len(shard.pairs)
        truncated: list[bool | None] = [None] * len(shard.pairs)
        if captions:
            texts = self.embed_texts(list(distinct))[[distinct[caption] for caption in captions]]
            for index, caption, value in zip(
                images, captions, cosines(list(images.values()), texts), strict=True
            ):
                values[index], truncated[index] = value, exceeds[caption]
        name, count = self.spec.name, sum(map(bool, truncated))
        columns = {name: float_column(values), f"{name}.truncated": bool_column(truncated)}
        return columns, {"captions_truncated": count} if count else {}


class ClipImageScorer(ClipScorer):
    """Cosine with the style reference (CLIP-I); null for raw pairs."""

    kinds = ("stylized",)

    def columns(self, shard: MeasuredShard) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        values = compute_reference_cosines(shard, self.images, self.context)
        return {self.spec.name: float_column(values)}, {}
