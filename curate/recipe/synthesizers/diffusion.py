"""Settings of what draws with diffusers, and of SDXL with an IP-Adapter."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from stylear.curate.recipe.synthesizers.base import BackendSettings


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
