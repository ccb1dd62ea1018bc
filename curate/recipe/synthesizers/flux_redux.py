"""Settings of `flux-redux`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from stylear.curate.recipe.synthesizers.diffusion import DiffusionSettings


class FluxReduxSettings(DiffusionSettings):
    """FLUX with the reference as tokens beside the prompt's (defaults: the Redux release)."""

    paths: ClassVar[tuple[str, ...]] = (*DiffusionSettings.paths, "redux")

    redux: str = Field(description="Directory of a FLUX Redux prior.")
    size: int = Field(
        1024, ge=16, multiple_of=16, description="Side of the drawn images in pixels."
    )
    steps: int = Field(50, ge=1, le=1000, description="Denoising steps (released code).")
    guidance: float = Field(
        2.5, ge=0, le=50, description="Distilled guidance scale (released code)."
    )
    prompt_tokens: int = Field(
        512,
        ge=1,
        le=512,
        description="Maximum length of a prompt in T5 tokens; FLUX.1 schnell takes 256.",
    )
    reference_grid: int | None = Field(
        None,
        ge=1,
        description="Pool the reference's tokens to a grid of this side; fewer tokens carry less of its"
        " content; default: no pooling.",
    )
    reference_scale: float = Field(1.0, ge=0, le=4, description="Scale of the reference's tokens.")
