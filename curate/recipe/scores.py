"""The scorers: which columns of numbers stand beside the pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field

from curate.recipe.base import NAME, Settings, under


def _free(name: str) -> str:
    """A name that no score table has already."""
    if name in TAKEN:
        raise ValueError(f"expected another name than the columns {' and '.join(TAKEN)}")
    return name


TAKEN = ("key", "colour")
Name = Annotated[str, Field(pattern=NAME), AfterValidator(_free)]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
RENAMED = {"clip-style": "clip-image"}  # old type -> what it is called now


class ClipTextScore(Settings):
    """Cosine of the image and its caption."""

    name: Name
    type: Literal["clip-text"]
    model: str = Field(
        "mini-clip",
        description="Which CLIP: a mini model, a directory in open_clip's layout, or ARCH/CHECKPOINT.",
    )
    batch_size: int = Field(
        64, ge=1, description="Images in one batch; decides the last digit of a score."
    )
    device: str = Field("auto", description="torch device; auto: cuda where there is one.")
    dtype: Dtype = Field(
        "auto", description="Precision; auto: float32 on a CPU, bfloat16 on a GPU (ours)."
    )

    def placed(self, base: Path) -> Self:
        arch, _, checkpoint = self.model.partition("/")
        if (base / self.model).exists():
            model = str(under(base, self.model))
        elif checkpoint and arch and (base / checkpoint).is_file():
            model = f"{arch}/{under(base, checkpoint)}"
        else:  # a model's name
            return self
        return self.model_copy(update={"model": model})


class ClipImageScore(ClipTextScore):
    """Cosine of the image and its style reference (CLIP-I)."""

    type: Literal["clip-image"]  # type: ignore[assignment]


class TextureScore(Settings):
    """A weight-free statistic of texture and colour, compared with the style reference."""

    name: Name
    type: Literal["texture"]


class PhashScore(Settings):
    """A 64-bit perceptual hash; always computed, named or not."""

    name: Name = "phash"
    type: Literal["phash"]


SCORERS = (ClipTextScore, ClipImageScore, TextureScore, PhashScore)
Score = Annotated[
    ClipTextScore | ClipImageScore | TextureScore | PhashScore, Field(discriminator="type")
]
