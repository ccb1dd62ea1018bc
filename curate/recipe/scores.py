"""The scorers: which columns of numbers stand beside the pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from curate.recipe.base import NAME, Settings, under


class ClipTextScore(Settings):
    """Cosine of the image and its caption."""

    name: str = Field(pattern=NAME)
    type: Literal["clip-text"]
    model: str = Field("mini-clip", description="Which CLIP: a mini model's name or a directory.")
    batch_size: int = Field(
        64, ge=1, description="Images in one batch; decides the last digit of a score."
    )
    device: str = Field("auto", description="torch device; auto: cuda where there is one.")

    def placed(self, base: Path) -> Self:
        if not (base / self.model).exists():  # a model's name
            return self
        return self.model_copy(update={"model": str(under(base, self.model))})


class ClipStyleScore(ClipTextScore):
    """Cosine of the image and its style reference."""

    type: Literal["clip-style"]  # type: ignore[assignment]


class TextureScore(Settings):
    """A weight-free statistic of texture and colour, compared with the style reference."""

    name: str = Field(pattern=NAME)
    type: Literal["texture"]
    batch_size: int = Field(
        64, ge=1, description="Images in one batch; decides the last digit of a score."
    )


class PhashScore(Settings):
    """A 64-bit perceptual hash; always computed, named or not."""

    name: str = Field("phash", pattern=NAME)
    type: Literal["phash"]


SCORERS = (ClipTextScore, ClipStyleScore, TextureScore, PhashScore)
Score = Annotated[
    ClipTextScore | ClipStyleScore | TextureScore | PhashScore, Field(discriminator="type")
]
