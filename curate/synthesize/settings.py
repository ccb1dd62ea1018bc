"""What each synthesiser can be told: the `synthesize.settings` of a recipe. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from curate.synthesize.call import check_call, check_class, varies
from stylear.errors import RecipeError


class BackendSettings(BaseModel):
    """Settings that every synthesiser has; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: ClassVar[tuple[str, ...]] = ()  # settings that name model files
    speed: ClassVar[frozenset[str]] = frozenset({"batch_size"})  # settings that change no image

    batch_size: int = Field(16, ge=1, description="Images in one batch; changes no image.")

    def deciding(self) -> dict[str, Any]:
        """What decides an image: no speed settings, and of model files the name, not the place."""
        values = self.model_dump(mode="json", exclude=set(self.speed))
        return values | {k: Path(values[k]).name for k in self.paths if values[k] is not None}


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


class DiffusionSettings(BackendSettings):
    """Settings of the synthesisers that run a diffusers pipeline; paths are local."""

    paths: ClassVar[tuple[str, ...]] = ("model", "lora")
    speed: ClassVar[frozenset[str]] = frozenset(
        {"batch_size", "device", "offload", "compile", "vae_slicing"}
    )

    batch_size: int = Field(4, ge=1, description="Images drawn in one batch; a CPU draws singly.")
    model: str = Field(description="Directory of a pipeline (model_index.json inside).")
    variant: str | None = Field(None, description="Weights variant, e.g. fp16.")
    size: int = Field(1024, ge=16, multiple_of=8, description="Pixels a side while drawing.")
    lora: str | None = Field(
        None, description="LoRA file that is fused in, e.g. of Lightning, Hyper-SD or LCM."
    )
    lora_scale: float = Field(1.0, ge=-4, le=4, description="How much of it.")
    sampler: str | None = Field(
        None, description="diffusers scheduler in place of the model's, e.g. LCMScheduler."
    )
    sampler_options: dict[str, bool | int | float | str | None] = Field(
        default_factory=dict, description="Its options, e.g. timestep_spacing: trailing."
    )
    retries: int = Field(
        1,
        ge=0,
        le=10,
        description="Seeds tried after an image that is not finite or unsafe (ours).",
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on a GPU, float32 on a CPU."
    )
    device: str = Field(
        "auto",
        pattern="^[a-z]+$",
        description="Kind of torch device; auto: cuda where there is one. Workers get a GPU each.",
    )
    threads: int = Field(
        1,
        ge=1,
        le=512,
        description="torch threads on a CPU; they decide an image's last bits (ours).",
    )
    offload: Literal["none", "model", "sequential"] = Field(
        "none", description="What waits in main memory: whole parts, or every layer (small GPUs)."
    )
    compile: bool = Field(
        False, description="torch.compile the denoiser: minutes once, then faster."
    )
    vae_slicing: bool = Field(True, description="Decode one image at a time: less memory.")
    vae_tiling: bool = Field(
        False, description="Decode in overlapping tiles: less memory still, changes the image."
    )


class SdxlSettings(DiffusionSettings):
    """SDXL with an IP-Adapter, in the layout of their releases."""

    paths: ClassVar[tuple[str, ...]] = (*DiffusionSettings.paths, "ip_adapter", "image_encoder")

    ip_adapter: str = Field(description="IP-Adapter weights file, or the directory of its release.")
    ip_adapter_subfolder: str = Field("sdxl_models", description="Where in that directory.")
    ip_adapter_weight_name: str = Field(
        "ip-adapter_sdxl.safetensors", description="Which file there."
    )
    image_encoder: str | None = Field(
        None, description="CLIP image encoder; default: in the model, or beside the adapter."
    )
    steps: int = Field(30, ge=1, le=1000, description="Denoising steps (InstantStyle).")
    guidance: float = Field(5.0, ge=0, le=50, description="Guidance scale (InstantStyle).")
    negative_prompt: str = Field(
        "text, watermark, lowres, low quality, worst quality, deformed, glitch, low contrast,"
        " noisy, saturation, blurry",
        description="What to stay away from (InstantStyle).",
    )


class InstantStyleSettings(SdxlSettings):
    """The adapter speaks to the style block only, or to the layout block too."""

    style_scale: float = Field(1.0, ge=0, le=2, description="Style block (InstantStyle).")
    layout_scale: float = Field(0.0, ge=0, le=2, description="Layout block, 0 = off (paper).")


class IpAdapterSettings(SdxlSettings):
    """The adapter, plain or plus, speaks to every block alike."""

    scale: float = Field(
        0.6, ge=0, le=2, description="Of all blocks (ours; 1.0 of IP-Adapter copies the reference)."
    )


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


class FluxReduxSettings(DiffusionSettings):
    """FLUX that reads the reference as tokens beside the prompt's (defaults: the Redux release)."""

    paths: ClassVar[tuple[str, ...]] = (*DiffusionSettings.paths, "redux")

    redux: str = Field(description="Directory of a FLUX Redux prior.")
    size: int = Field(1024, ge=16, multiple_of=16, description="Pixels a side while drawing.")
    steps: int = Field(50, ge=1, le=1000, description="Denoising steps (code).")
    guidance: float = Field(2.5, ge=0, le=50, description="Guidance the model was taught (code).")
    prompt_tokens: int = Field(
        512, ge=1, le=512, description="Longest prompt in T5 tokens; FLUX.1 schnell takes 256."
    )
    reference_grid: int | None = Field(
        None,
        ge=1,
        description="Side to which the reference's grid of tokens is averaged: fewer tell less of what"
        " it shows (ours); default: as it is.",
    )
    reference_scale: float = Field(
        1.0, ge=0, le=4, description="Factor on the reference's tokens (ours)."
    )


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


BACKENDS: dict[str, type[BackendSettings]] = {
    "patch": PatchSettings,
    "statistics": StatisticsSettings,
    "render": RenderSettings,
    "instantstyle": InstantStyleSettings,
    "ip-adapter": IpAdapterSettings,
    "style-aligned": StyleAlignedSettings,
    "flux-redux": FluxReduxSettings,
    "pipeline": PipelineSettings,
}
NEEDS_CONTENT = frozenset(
    {"patch", "statistics", "render"}
)  # these stylise a picture; others draw a prompt


def backend_settings(backend: str, values: Mapping[str, Any]) -> BackendSettings:
    """The checked settings of `backend`, defaults filled in. Raises RecipeError naming the key."""
    if backend not in BACKENDS:
        known = ", ".join(BACKENDS)
        raise RecipeError(
            f"synthesize.backend: expected one of {known}, found {backend!r}",
            hint="choose one of the synthesisers listed",
        )
    model = BACKENDS[backend]
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(["synthesize", "settings", *(str(part) for part in first["loc"])])
        known = ", ".join(model.model_fields)
        found = "nothing" if first["type"] == "missing" else repr(first["input"])
        message = f"{key}: {first['msg'].lower()}, found {found}"
        if first["type"] == "value_error":  # of a check of ours, which says what it found
            message = f"{key}: {first['ctx']['error']}"
        raise RecipeError(message, hint=f"settings of backend {backend}: {known}") from error


def absolute_paths(backend: str, values: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The settings with paths that lie below `base` (the recipe's folder) made absolute."""
    resolved = dict(values)
    for key in BACKENDS[backend].paths:
        value = resolved.get(key)
        if isinstance(value, str) and (base / value).exists():
            resolved[key] = str((base / value).resolve())
    return resolved
