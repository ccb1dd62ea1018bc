"""Aesthetics: a linear head over CLIP image embeddings that predicts how people rate an image.

Axes: B images, D embedding size of the CLIP.
Source: LAION's aesthetic predictor, sa_0_4_vit_{b_16,b_32,l_14}_linear.pth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from stylear.errors import WeightsError
from stylear.weights.files import hash_path, load_into, read_tensors
from stylear.weights.names import resolve_file

HEAD = "an aesthetic head"  # for errors


class AestheticHead:
    """One published head: unit-length CLIP embeddings to ratings, about 1 to 10."""

    def __init__(self, name: str, weights: Path, layer: nn.Linear) -> None:
        self.name = name
        self.weights_sha256 = hash_path(weights)
        self.layer = layer.eval().requires_grad_(False)
        self.embed_dim = layer.in_features

    @classmethod
    def open(cls, name: str | Path, embed_dim: int) -> Self:
        """Open a head for a CLIP whose embeddings have `embed_dim` numbers; it stays on the CPU.

        The size distinguishes OpenAI's base towers (512) from the large one (768), but not B/16 from
        B/32, nor OpenAI's weights from others: you must name a head and a CLIP that match.
        Raises WeightsError if the file is missing, is not a linear head, or fits another CLIP.
        """
        path = resolve_file(name, HEAD)
        tensors = read_tensors(path, ("weight", "bias"))
        weight = tensors.get("weight")
        width = weight.shape[-1] if weight is not None and weight.ndim == 2 else None
        if width is not None and width != embed_dim:
            raise WeightsError(
                f"{path}: expected a head for embeddings of {embed_dim}, found one for {width}",
                hint="name the CLIP that the head was trained on: vit_l_14 has 768 dimensions,"
                " vit_b_16 and vit_b_32 have 512",
            )
        with torch.device("meta"):
            layer = nn.Linear(embed_dim, 1)
        load_into(layer, tensors, what=str(path))
        return cls(path.name, path, layer)

    @torch.no_grad()
    def rate(self, embeddings: Tensor) -> Tensor:
        """Unit-length image embeddings (B, D) to ratings (B,), float32."""
        ratings: Tensor = self.layer(embeddings.float().cpu())[:, 0]
        return ratings
