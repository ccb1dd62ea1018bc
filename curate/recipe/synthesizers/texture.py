"""Settings of the synthesisers that stylise an image without a model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stylear.curate.recipe.synthesizers.base import BackendSettings


class ContentImageSettings(BackendSettings):
    """Settings of the synthesisers that stylise a content image."""

    reference_size: int | None = Field(
        None,
        ge=16,
        le=1024,
        description="Side of the reference in pixels; default: that of the image.",
    )
    invert: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Invert the content's brightness if the reference's background is the opposite.",
    )
    outline: float = Field(0.25, ge=0, le=1, description="Strength of outlines.")
    figure: float = Field(
        0.2, ge=0, le=1, description="Contrast between the subject and a plain background."
    )


class StatisticsSettings(ContentImageSettings):
    """Closed-form transfer of colour and grain statistics: fast, but ignores shapes in the texture."""

    levels: int = Field(3, ge=1, le=6, description="Levels of the Laplacian pyramid.")
    rounds: int = Field(2, ge=1, le=20, description="Passes over the pyramid.")
    content: float = Field(
        0.5, ge=0, le=1, description="Share of the content's lowest band that is kept."
    )
    grain: float = Field(
        0.04, ge=0, le=1, description="Noise from which flat areas get their grain."
    )


class PatchSettings(ContentImageSettings):
    """The content rebuilt from patches of the reference; `sliced` is GPDM, `nearest` is faster."""

    match: Literal["nearest", "sliced"] = Field("nearest", description="How patches are matched.")
    content: float = Field(0.6, ge=0, le=1, description="Weight of the content image.")
    content_spread: float = Field(
        0.15,
        ge=0,
        le=0.5,
        description="Maximum variation of the content weight between candidates.",
    )
    patch: Literal[3, 5, 7, 9, 11] | None = Field(
        None, description="Side of a patch in pixels; default 5, above 128 px 7 (GPDM: 7)."
    )
    grain: float = Field(0.03, ge=0, le=1, description="Noise added to the start.")
    rounds: int = Field(3, ge=1, le=20, description="nearest: passes per scale.")
    completeness: float = Field(
        0.01, ge=0, le=10, description="nearest: lower values use more of the reference; 0: off."
    )
    stride: int | None = Field(
        None,
        ge=1,
        le=5,
        description="nearest: stride of patches in pixels; default 2, above 128 px 3.",
    )
    max_patches: int = Field(
        4096, ge=64, description="nearest: maximum number of reference patches."
    )
    steps: int = Field(40, ge=1, le=1000, description="sliced: Adam steps per scale.")
    projections: int = Field(32, ge=1, le=512, description="sliced: projections per step.")
    rate: float = Field(0.03, gt=0, le=1, description="sliced: learning rate.")


class RenderSettings(BackendSettings):
    """Redraws the content in the procedural style of a mini reference; for the mini family."""
