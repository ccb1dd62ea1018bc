"""Settings of `style-aligned`."""

from __future__ import annotations

import re

from pydantic import Field, model_validator

from stylear.curate.recipe.synthesizers.diffusion import DiffusionSettings


class StyleAlignedSettings(DiffusionSettings):
    """SDXL with self-attention shared with the reference, without adapter (defaults: the authors' code)."""

    steps: int = Field(
        50, ge=1, le=1000, description="DDIM steps, of inversion and of denoising (released code)."
    )
    guidance: float = Field(10.0, ge=0, le=50, description="Guidance scale (released code).")
    negative_prompt: str = Field("", description="Negative prompt; empty: none (released code).")
    reference_prompt: str = Field(
        "", description="Prompt of the inversion; {style} stands for the style's name."
    )
    inversion_guidance: float = Field(
        2.0,
        ge=0,
        le=50,
        description="Guidance scale of the inversion, if it has a prompt (released code).",
    )
    inversion_skip: int = Field(
        5, ge=0, description="Number of the noisiest inversion steps to skip (released code)."
    )
    shared_layers: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the self-attention layers that are shared; 0: plain SDXL (paper: 1).",
    )
    reference_scale: float = Field(
        1.0,
        ge=0,
        le=4,
        description="Scale of the reference's keys; lower it for famous images (released code).",
    )
    reference_shift: float = Field(
        0.6931, ge=-10, le=10, description="Shift of the reference's logits (code: ln 2; paper: 0)."
    )
    share_group_norm: bool = Field(
        True,
        description="Share group norms between image and reference (released code; not in the paper).",
    )

    @model_validator(mode="after")
    def _check_combination(self) -> StyleAlignedSettings:
        if self.sampler is not None or self.sampler_options:
            raise ValueError("sampler and sampler_options: style-aligned samples with DDIM")
        if self.inversion_skip >= self.steps:
            raise ValueError(f"inversion_skip: expected less than steps ({self.steps})")
        if re.search(r"[{}]", self.reference_prompt.replace("{style}", "")):
            raise ValueError("reference_prompt: the only placeholder is {style}")
        return self
