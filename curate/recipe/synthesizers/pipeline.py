"""Settings of `pipeline`: a class of diffusers, and its call as data."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from stylear.curate.recipe.synthesizers.diffusion import DiffusionSettings
from stylear.curate.recipe.synthesizers.pipeline_call import check_call, check_class, varies


class PipelineSettings(DiffusionSettings):
    """Any pipeline of diffusers, told what `call` says."""

    batch_size: int = Field(1, ge=1, description="Images in one call; 1 suits every pipeline.")
    pipeline: str = Field(description="Its class, e.g. FluxKontextPipeline.")
    call: dict[str, Any] = Field(
        description="Its arguments; {prompt}, {style}, {reference}, {size}, {seed} are filled in."
    )

    @field_validator("pipeline")
    @classmethod
    def _exported(cls, name: str) -> str:
        return check_class(name)

    @model_validator(mode="after")
    def _possible(self) -> PipelineSettings:
        check_call(self.call)
        if self.batch_size > 1:
            for name, value in self.call.items():
                if varies(value) and not isinstance(value, str):
                    raise ValueError(f"call.{name}: only a text can differ by image in one batch")
        return self
