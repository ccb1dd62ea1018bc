"""DINOv2 scores: of an image and its style reference (dino), of an image and its content image (cas)."""

from __future__ import annotations

from collections.abc import Sequence
from threading import local
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stylear.curate.score.decode import decode
from stylear.curate.score.device import resolve_device
from stylear.curate.score.reference import reference_cosines
from stylear.curate.score.scorer import Context, Measured, Scorer
from stylear.curate.score.table import float_column
from stylear.encoders.dino import DinoEncoder, content_alignment, model_files
from stylear.weights.files import sha256_of

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

    from stylear.pair import Pair

Aligned = tuple[Tensor, str | None, Tensor | None]  # the image, its parent's key, its parent


class Passes:
    """One DINOv2, and its last pass: features of one batch of images ask for the same, one by one."""

    def __init__(self, dino: DinoEncoder) -> None:
        self.dino = dino
        self._shaped = local()  # of each thread: the last image and what it became
        self._passed: tuple[list[Tensor], Tensor] | None = None

    def shape(self, image: Image.Image) -> Tensor:
        """What `features` takes of an image: the same object when the same image is asked again."""
        before: tuple[Image.Image, Tensor] | None = getattr(self._shaped, "last", None)
        if before is None or before[0] is not image:
            before = self._shaped.last = (image, self.dino.shape(image))
        return before[1]

    def features(self, shaped: Sequence[Tensor]) -> Tensor:
        """(B, 1+N, D) of a batch: what it gave just now, when these are the images of just now."""
        before = self._passed
        if before is None or [id(one) for one in before[0]] != [id(one) for one in shaped]:
            before = list(shaped), self.dino.features(self.dino.pixels(shaped))
            self._passed = before
        return before[1]


class Contents:
    """The class token of one DINOv2, as a feature: (B, D) of length one."""

    def __init__(self, passes: Passes, spec: Any) -> None:
        self.passes, self.batch_size = passes, int(spec.batch_size)
        self.name = ("dino", spec.model, spec.device, spec.dtype, self.batch_size)

    def prepare(self, image: Image.Image) -> Tensor:
        return self.passes.shape(image)

    def measure(self, prepared: Sequence[Tensor]) -> Tensor:
        return F.normalize(self.passes.features(prepared)[:, 0], dim=-1)


class Alignment:
    """How far an image is from the content image of its pair, as a feature: (B,), NaN without one.

    The parents of a batch are passed together, each once; they are read in the threads of the loader.
    """

    def __init__(self, passes: Passes, spec: Any, context: Context) -> None:
        self.passes, self.batch_size, self.context = passes, int(spec.batch_size), context
        self.name = ("cas", spec.model, spec.device, spec.dtype, self.batch_size)

    def prepare_pair(self, pair: Pair, image: Image.Image) -> Aligned:
        shaped, parent = self.passes.shape(image), self.context.parent(pair)
        if parent is None or not parent.image:
            return shaped, None, None
        return shaped, parent.key, self.passes.dino.shape(decode(parent))

    def measure(self, prepared: Sequence[Aligned]) -> Tensor:
        results = self.passes.features([shaped for shaped, _, _ in prepared])
        found = torch.full((len(prepared),), torch.nan, device=results.device)
        parents = {key: parent for _, key, parent in prepared if key and parent is not None}
        if parents:
            dino, row = self.passes.dino, {key: i for i, key in enumerate(parents)}
            contents = dino.features(dino.pixels(list(parents.values())))
            places = [i for i, (_, key, _) in enumerate(prepared) if key]
            chosen = contents[[row[key] for _, key, _ in prepared if key]]
            found[places] = content_alignment(chosen[:, 1:], results[places][:, 1:])
        return found


class DinoScorer(Scorer):
    """Cosine with the style reference; null for raw pairs."""

    kinds = ("stylized",)

    def __init__(self, spec: Any, context: Context) -> None:
        super().__init__(resolve_device(spec), context)
        model, device = self.spec.model, self.spec.device
        dtype: torch.dtype = getattr(torch, self.spec.dtype)
        self.passes = context.opened(
            ("dino", model, device, self.spec.dtype),
            lambda: Passes(DinoEncoder.open(model, device, dtype)),
        )
        self.contents = Contents(self.passes, self.spec)
        self.features = (self.contents,)

    @classmethod
    def identity(cls, spec: Any) -> tuple[str, ...]:
        return tuple(sha256_of(file) for file in model_files(spec.model))

    def told(self) -> dict[str, Any]:
        return {
            "model": self.passes.dino.name,
            "weights_sha256": self.passes.dino.weights_sha256,
            "dtype": self.spec.dtype,
            "preprocessing": self.passes.dino.preprocessing,
        }

    def columns(self, shard: Measured) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        return {
            self.spec.name: float_column(reference_cosines(shard, self.contents, self.context))
        }, {}


class CasScorer(DinoScorer):
    """Content alignment with the parent (lower is better); null for pairs without one."""

    def __init__(self, spec: Any, context: Context) -> None:
        super().__init__(spec, context)
        self.alignment = Alignment(self.passes, self.spec, context)
        self.features = (self.alignment,)

    def columns(self, shard: Measured) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        found = shard.of(self.alignment)
        values = [
            None if pair.origin.parent is None or place not in found else float(found[place])
            for place, pair in enumerate(shard.pairs)
        ]
        return {self.spec.name: float_column(values)}, {}
