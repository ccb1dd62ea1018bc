"""DINOv2 scores of an image and its style reference (dino) or its content image (cas)."""

from __future__ import annotations

from collections.abc import Sequence
from threading import local
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stylear.curate.score.decode import decode_pair_image
from stylear.curate.score.device import resolve_device
from stylear.curate.score.reference import compute_reference_cosines
from stylear.curate.score.scorer import Context, MeasuredShard, Scorer
from stylear.curate.score.table import float_column
from stylear.encoders.dino import DinoEncoder, content_alignment, model_files
from stylear.weights.files import hash_path

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

    from stylear.pair import Pair

Aligned = tuple[Tensor, str | None, Tensor | None]  # the image, its parent's key, its parent


class SharedPass:
    """A DINOv2 that keeps its last batch: the features of several scorers share one forward pass."""

    def __init__(self, dino: DinoEncoder) -> None:
        self.dino = dino
        self._resized = local()  # by thread: the last image and its tensor
        self._passed: tuple[list[Tensor], Tensor] | None = None

    def resize(self, image: Image.Image) -> Tensor:
        """The tensor of an image; the same object if it is the thread's last image."""
        before: tuple[Image.Image, Tensor] | None = getattr(self._resized, "last", None)
        if before is None or before[0] is not image:
            before = self._resized.last = (image, self.dino.preprocessor.resize(image))
        return before[1]

    def features(self, resized: Sequence[Tensor]) -> Tensor:
        """(B, 1+N, D) of a batch; the cached result if these are the tensors of the last call."""
        before = self._passed
        if before is None or [id(image) for image in before[0]] != [id(image) for image in resized]:
            before = list(resized), self.dino.features(self.dino.preprocessor.normalize(resized))
            self._passed = before
        return before[1]


class ClassTokenFeature:
    """The class token of a DINOv2: (B, D) of length one."""

    def __init__(self, passes: SharedPass, spec: Any) -> None:
        self.passes, self.batch_size = passes, int(spec.batch_size)
        self.name = ("dino", spec.model, spec.device, spec.dtype, self.batch_size)

    def prepare(self, image: Image.Image) -> Tensor:
        return self.passes.resize(image)

    def measure(self, prepared: Sequence[Tensor]) -> Tensor:
        return F.normalize(self.passes.features(prepared)[:, 0], dim=-1)


class AlignmentFeature:
    """The content alignment of an image with its parent: (B,), NaN without a parent.

    The distinct parents of a batch share one forward pass; the loader's threads read them.
    """

    def __init__(self, passes: SharedPass, spec: Any, context: Context) -> None:
        self.passes, self.batch_size, self.context = passes, int(spec.batch_size), context
        self.name = ("cas", spec.model, spec.device, spec.dtype, self.batch_size)

    def prepare_pair(self, pair: Pair, image: Image.Image) -> Aligned:
        resized, parent = self.passes.resize(image), self.context.parent(pair)
        if parent is None or not parent.image:
            return resized, None, None
        return resized, parent.key, self.passes.dino.preprocessor.resize(decode_pair_image(parent))

    def measure(self, prepared: Sequence[Aligned]) -> Tensor:
        results = self.passes.features([resized for resized, _, _ in prepared])
        scores = torch.full((len(prepared),), torch.nan, device=results.device)
        parents = {key: parent for _, key, parent in prepared if key and parent is not None}
        if parents:
            dino, row = self.passes.dino, {key: i for i, key in enumerate(parents)}
            contents = dino.features(dino.preprocessor.normalize(list(parents.values())))
            indices = [i for i, (_, key, _) in enumerate(prepared) if key]
            chosen = contents[[row[key] for _, key, _ in prepared if key]]
            scores[indices] = content_alignment(chosen[:, 1:], results[indices][:, 1:])
        return scores


class DinoScorer(Scorer):
    """Cosine with the style reference; null for raw pairs."""

    kinds = ("stylized",)

    def __init__(self, spec: Any, context: Context) -> None:
        super().__init__(resolve_device(spec), context)
        model, device = self.spec.model, self.spec.device
        dtype: torch.dtype = getattr(torch, self.spec.dtype)
        self.passes = context.get_or_open(
            ("dino", model, device, self.spec.dtype),
            lambda: SharedPass(DinoEncoder.open(model, device, dtype)),
        )
        self.contents = ClassTokenFeature(self.passes, self.spec)
        self.features = (self.contents,)

    @classmethod
    def fingerprint_parts(cls, spec: Any) -> tuple[str, ...]:
        return tuple(hash_path(file) for file in model_files(spec.model))

    def metadata(self) -> dict[str, Any]:
        return {
            "model": self.passes.dino.name,
            "weights_sha256": self.passes.dino.weights_sha256,
            "dtype": self.spec.dtype,
            "preprocessing": self.passes.dino.preprocessing,
        }

    def columns(self, shard: MeasuredShard) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        return {
            self.spec.name: float_column(
                compute_reference_cosines(shard, self.contents, self.context)
            )
        }, {}


class CasScorer(DinoScorer):
    """Content alignment with the parent (lower is better); null for pairs without one."""

    def __init__(self, spec: Any, context: Context) -> None:
        super().__init__(spec, context)
        self.alignment = AlignmentFeature(self.passes, self.spec, context)
        self.features = (self.alignment,)

    def columns(self, shard: MeasuredShard) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        alignments = shard.rows(self.alignment)
        values = [
            None
            if pair.origin.parent is None or index not in alignments
            else float(alignments[index])
            for index, pair in enumerate(shard.pairs)
        ]
        return {self.spec.name: float_column(values)}, {}
