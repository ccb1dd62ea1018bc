"""The CSD score: style similarity of an image and its style reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stylear.curate.score.device import resolve_device
from stylear.curate.score.reference import compute_reference_cosines
from stylear.curate.score.scorer import Context, MeasuredShard, Scorer
from stylear.curate.score.table import float_column
from stylear.encoders.style import CHECKPOINT, CsdEncoder
from stylear.weights.files import hash_path
from stylear.weights.names import resolve_file

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image


class StyleFeature:
    """The style embedding of a CSD model: (B, D) of length one."""

    def __init__(self, csd: CsdEncoder, spec: Any) -> None:
        self.csd, self.batch_size = csd, int(spec.batch_size)
        self.name = ("csd", spec.model, spec.device, spec.dtype, self.batch_size)

    def prepare(self, image: Image.Image) -> Tensor:
        return self.csd.preprocessor.resize(image)

    def measure(self, prepared: Sequence[Tensor]) -> Tensor:
        return self.csd.embed_images(self.csd.preprocessor.normalize(prepared))


class CsdScorer(Scorer):
    """Cosine with the style reference; null for raw pairs."""

    kinds = ("stylized",)

    def __init__(self, spec: Any, context: Context) -> None:
        super().__init__(resolve_device(spec), context)
        model, device = self.spec.model, self.spec.device
        dtype: torch.dtype = getattr(torch, self.spec.dtype)
        self.csd = context.get_or_open(
            ("csd", model, device, self.spec.dtype),
            lambda: CsdEncoder.open(model, device, dtype),
        )
        self.styles = StyleFeature(self.csd, self.spec)
        self.features = (self.styles,)

    @classmethod
    def fingerprint_parts(cls, spec: Any) -> tuple[str, ...]:
        return (hash_path(resolve_file(spec.model, CHECKPOINT)),)

    def metadata(self) -> dict[str, Any]:
        return {
            "model": self.csd.name,
            "weights_sha256": self.csd.weights_sha256,
            "dtype": self.spec.dtype,
            "preprocessing": self.csd.preprocessing,
        }

    def columns(self, shard: MeasuredShard) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        return {
            self.spec.name: float_column(
                compute_reference_cosines(shard, self.styles, self.context)
            )
        }, {}
