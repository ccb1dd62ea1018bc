"""The scorers: which columns of numbers stand beside the pairs."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field

from stylear.curate.recipe.base import NAME, PathRule, Settings


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

    def map_paths(self, rule: PathRule) -> Self:
        arch, _, checkpoint = self.model.partition("/")
        model = rule.name(self.model)
        if model == self.model and arch and checkpoint:  # ARCH/CHECKPOINT
            model = f"{arch}/{rule.name(checkpoint)}"
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


class AestheticScore(ClipTextScore):
    """How people would rate the picture, guessed by a linear head over CLIP."""

    type: Literal["aesthetic"]  # type: ignore[assignment]
    model: str = Field(description="The CLIP that the head was trained on.")
    head: str = Field(description="A linear head, such as sa_0_4_vit_l_14_linear.pth.")

    def map_paths(self, rule: PathRule) -> Self:
        return super().map_paths(rule).model_copy(update={"head": rule.name(self.head)})


class LeakageScore(ClipTextScore):
    """Cosine of the image and the content of its style reference; higher is more leaked."""

    type: Literal["leakage"]  # type: ignore[assignment]
    segment: str | None = Field(
        None,
        pattern=r"^(grabcut|sam:.+)$",
        description="null: the scene that the reference's caption tells; else its subject, cut out"
        " by grabcut or sam:CHECKPOINT.",
    )

    def map_paths(self, rule: PathRule) -> Self:
        changed = super().map_paths(rule)
        kind, _, checkpoint = (self.segment or "").partition(":")
        if kind != "sam":
            return changed
        return changed.model_copy(update={"segment": f"sam:{rule.name(checkpoint)}"})


class NearestScore(ClipTextScore):
    """Cosine of the image and the most similar other one of its kind; higher is more of the same."""

    type: Literal["nearest"]  # type: ignore[assignment]


class CsdScore(ClipTextScore):
    """Cosine of the style of the image and of its style reference."""

    type: Literal["csd"]  # type: ignore[assignment]
    model: str = Field(description="A CSD checkpoint as published.")


class DinoScore(ClipTextScore):
    """Cosine of the image and its style reference by DINOv2."""

    type: Literal["dino"]  # type: ignore[assignment]
    model: str = Field(description="Directory of a DINOv2 model of transformers.")


class CasScore(DinoScore):
    """How far the content moved from the parent's, by DINOv2; lower is better aligned."""

    type: Literal["cas"]  # type: ignore[assignment]


SCORERS = (
    ClipTextScore,
    ClipImageScore,
    TextureScore,
    PhashScore,
    AestheticScore,
    LeakageScore,
    NearestScore,
    CsdScore,
    DinoScore,
    CasScore,
)
Score = Annotated[
    ClipTextScore
    | ClipImageScore
    | TextureScore
    | PhashScore
    | AestheticScore
    | LeakageScore
    | NearestScore
    | CsdScore
    | DinoScore
    | CasScore,
    Field(discriminator="type"),
]
