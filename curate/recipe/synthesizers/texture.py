"""Settings of the synthesisers that stylise a picture without weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stylear.curate.recipe.synthesizers.base import BackendSettings


class PictureSettings(BackendSettings):
    """Settings of the synthesisers that stylise a picture."""

    reference_size: int | None = Field(
        None, ge=16, le=1024, description="Side of the reference in pixels; default: the image's."
    )
    invert: Literal["auto", "always", "never"] = Field(
        "auto", description="Turn light to dark where the reference's ground is the opposite."
    )
    outline: float = Field(0.25, ge=0, le=1, description="How much outlines are marked (ours).")
    figure: float = Field(
        0.2, ge=0, le=1, description="How much a subject is set off from a plain ground (ours)."
    )


class StatisticsSettings(PictureSettings):
    """Closed-form transfer of colours and grain: quick, and blind to shapes in the texture."""

    levels: int = Field(3, ge=1, le=6, description="Bands of the Laplacian pyramid (ours).")
    rounds: int = Field(2, ge=1, le=20, description="Passes over the pyramid (ours).")
    content: float = Field(0.5, ge=0, le=1, description="Share of the content's low band kept.")
    grain: float = Field(0.04, ge=0, le=1, description="Noise that flat areas grow grain from.")


class PatchSettings(PictureSettings):
    """Patches of the reference laid over the content; `sliced` is GPDM, `nearest` is quicker."""

    match: Literal["nearest", "sliced"] = Field("nearest", description="How patches are matched.")
    content: float = Field(0.6, ge=0, le=1, description="Weight of the content image (ours).")
    content_spread: float = Field(
        0.15, ge=0, le=0.5, description="Candidates vary the content weight by up to this (ours)."
    )
    patch: Literal[3, 5, 7, 9, 11] | None = Field(
        None, description="Side of a patch in pixels; default 5, above 128 px 7 (GPDM: 7)."
    )
    grain: float = Field(0.03, ge=0, le=1, description="Noise on the start (ours).")
    rounds: int = Field(3, ge=1, le=20, description="nearest: passes a scale (ours).")
    completeness: float = Field(
        0.01, ge=0, le=10, description="nearest: lower uses more of the reference; 0 turns it off."
    )
    stride: int | None = Field(
        None, ge=1, le=5, description="nearest: pixels between patches; default 2, above 128 px 3."
    )
    max_patches: int = Field(4096, ge=64, description="nearest: patches of the reference in use.")
    steps: int = Field(40, ge=1, le=1000, description="sliced: Adam steps a scale (ours).")
    projections: int = Field(32, ge=1, le=512, description="sliced: projections a step (ours).")
    rate: float = Field(0.03, gt=0, le=1, description="sliced: learning rate (ours).")


class RenderSettings(BackendSettings):
    """The procedural style that drew a mini reference, drawn over the content: for the mini family."""
