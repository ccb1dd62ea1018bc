"""Settings of diffusers pipelines, and of SDXL with an IP-Adapter."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from stylear.curate.recipe.synthesizers.base import BackendSettings


class DiffusionSettings(BackendSettings):
    """Settings of the synthesisers that run a diffusers pipeline; all paths are local."""

    paths: ClassVar[tuple[str, ...]] = ("model", "lora")
    speed: ClassVar[frozenset[str]] = frozenset(
        {"batch_size", "device", "offload", "compile", "vae_slicing"}
    )

    batch_size: int = Field(4, ge=1, description="Images per batch; a CPU draws one at a time.")
    model: str = Field(description="Directory of a diffusers pipeline (with model_index.json).")
    variant: str | None = Field(None, description="Variant of the weights, e.g. fp16.")
    size: int = Field(1024, ge=16, multiple_of=8, description="Side of the drawn images in pixels.")
    lora: str | None = Field(
        None, description="LoRA file to fuse into the model, e.g. Lightning, Hyper-SD or LCM."
    )
    lora_scale: float = Field(1.0, ge=-4, le=4, description="Scale of the LoRA.")
    sampler: str | None = Field(
        None, description="Scheduler of diffusers to use instead of the model's, e.g. LCMScheduler."
    )
    sampler_options: dict[str, bool | int | float | str | None] = Field(
        default_factory=dict,
        description="Options of the scheduler, e.g. timestep_spacing: trailing.",
    )
    retries: int = Field(
        1,
        ge=0,
        le=10,
        description="Further seeds to try if an image is unsafe or not finite.",
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on a GPU, float32 on a CPU."
    )
    device: str = Field(
        "auto",
        pattern="^[a-z]+$",
        description="Type of torch device; auto: cuda if available. Each worker gets a GPU of its own.",
    )
    threads: int = Field(
        1,
        ge=1,
        le=512,
        description="torch threads on a CPU; they affect the last bits of an image.",
    )
    offload: Literal["none", "model", "sequential"] = Field(
        "none", description="Offload to main memory: whole models, or every layer (for small GPUs)."
    )
    compile: bool = Field(
        False,
        description="Compile the denoiser with torch.compile: takes minutes once, then is faster.",
    )
    vae_slicing: bool = Field(True, description="Decode one image at a time; needs less memory.")
    vae_tiling: bool = Field(
        False,
        description="Decode in overlapping tiles; needs even less memory, but changes the image.",
    )


class SdxlSettings(DiffusionSettings):
    """SDXL with an IP-Adapter, in the layout of the releases."""

    paths: ClassVar[tuple[str, ...]] = (*DiffusionSettings.paths, "ip_adapter", "image_encoder")

    ip_adapter: str = Field(description="IP-Adapter weights file, or the directory of its release.")
    ip_adapter_subfolder: str = Field(
        "sdxl_models", description="Subfolder of the adapter in that directory."
    )
    ip_adapter_weight_name: str = Field(
        "ip-adapter_sdxl.safetensors", description="File of the adapter in that subfolder."
    )
    image_encoder: str | None = Field(
        None,
        description="Directory of the CLIP image encoder; default: in the model, or beside the adapter.",
    )
    steps: int = Field(30, ge=1, le=1000, description="Denoising steps (InstantStyle).")
    guidance: float = Field(5.0, ge=0, le=50, description="Guidance scale (InstantStyle).")
    negative_prompt: str = Field(
        "text, watermark, lowres, low quality, worst quality, deformed, glitch, low contrast,"
        " noisy, saturation, blurry",
        description="Negative prompt (InstantStyle).",
    )


class InstantStyleSettings(SdxlSettings):
    """The adapter conditions only the style block, or the layout block too."""

    style_scale: float = Field(
        1.0, ge=0, le=2, description="Scale in the style block (InstantStyle)."
    )
    layout_scale: float = Field(
        0.0, ge=0, le=2, description="Scale in the layout block; 0: off (as in the paper)."
    )


class IpAdapterSettings(SdxlSettings):
    """The adapter, plain or plus, conditions all blocks alike."""

    scale: float = Field(
        0.6,
        ge=0,
        le=2,
        description="Scale in all blocks (IP-Adapter's 1.0 copies the reference).",
    )
