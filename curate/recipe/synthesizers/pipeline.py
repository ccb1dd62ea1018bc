"""Settings of `pipeline`: a pipeline class of diffusers, and its call as data."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from stylear.curate.recipe.synthesizers.diffusion import DiffusionSettings
from stylear.curate.recipe.synthesizers.pipeline_call import check_call, check_class, is_per_image


class PipelineSettings(DiffusionSettings):
    """Any pipeline of diffusers, called with the arguments in `call`."""

    batch_size: int = Field(1, ge=1, description="Images per call; 1 works with every pipeline.")
    pipeline: str = Field(description="Class of the pipeline, e.g. FluxKontextPipeline.")
    call: dict[str, Any] = Field(
        description="Arguments of the call; {prompt}, {style}, {reference}, {size} and {seed} are filled in."
    )

    @field_validator("pipeline")
    @classmethod
    def _check_pipeline(cls, name: str) -> str:
        return check_class(name)

    @model_validator(mode="after")
    def _check_call(self) -> PipelineSettings:
        check_call(self.call)
        if self.batch_size > 1:
            for name, value in self.call.items():
                if is_per_image(value) and not isinstance(value, str):
                    raise ValueError(
                        f"call.{name}: only strings can differ between the images of a batch"
                    )
        return self
