"""Settings of `style-aligned`."""

from __future__ import annotations

import re

from pydantic import Field, model_validator

from stylear.curate.recipe.synthesizers.diffusion import DiffusionSettings


class StyleAlignedSettings(DiffusionSettings):
    """SDXL whose self-attention looks at the reference too; no adapter (defaults: the authors' code)."""

    steps: int = Field(50, ge=1, le=1000, description="Steps of DDIM, there and back (code).")
    guidance: float = Field(10.0, ge=0, le=50, description="Guidance scale (code).")
    negative_prompt: str = Field("", description="What to stay away from; empty: none (code).")
    reference_prompt: str = Field(
        "", description="What the inversion is told of the reference; {style} is its style's name."
    )
    inversion_guidance: float = Field(
        2.0, ge=0, le=50, description="Guidance of the inversion; none where there is none (code)."
    )
    inversion_skip: int = Field(
        5, ge=0, description="Noisiest steps of the inversion that are passed over (code)."
    )
    shared_layers: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Part of the self-attention layers; 0 is plain SDXL (paper: 1).",
    )
    reference_scale: float = Field(
        1.0, ge=0, le=4, description="Of the reference's keys; lower for famous pictures (code)."
    )
    reference_shift: float = Field(
        0.6931, ge=-10, le=10, description="Added to the reference's logits (code: ln 2; paper: 0)."
    )
    share_group_norm: bool = Field(
        True, description="Group norms see image and reference together (code; not in the paper)."
    )

    @model_validator(mode="after")
    def _possible(self) -> StyleAlignedSettings:
        if self.sampler is not None or self.sampler_options:
            raise ValueError("sampler and sampler_options: style-aligned samples with DDIM")
        if self.inversion_skip >= self.steps:
            raise ValueError(f"inversion_skip: expected less than steps ({self.steps})")
        if re.search(r"[{}]", self.reference_prompt.replace("{style}", "")):
            raise ValueError("reference_prompt: the only place is {style}")
        return self
