"""What each synthesiser can be told: the `synthesize.settings` of a recipe. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stylear.errors import RecipeError


class BackendSettings(BaseModel):
    """Settings that every synthesiser has; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int = Field(16, ge=1, description="Images in one batch; changes no image.")


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


class InstantStyleSettings(BackendSettings):
    """SDXL + IP-Adapter on the style block; paths are local, in the layout of their releases."""

    batch_size: int = Field(4, ge=1, description="Images drawn in one batch.")
    model: str = Field(description="Directory of an SDXL pipeline (model_index.json inside).")
    variant: str | None = Field(None, description="Weights variant, e.g. fp16.")
    ip_adapter: str = Field(description="IP-Adapter weights file, or the directory of its release.")
    ip_adapter_subfolder: str = Field("sdxl_models", description="Where in that directory.")
    ip_adapter_weight_name: str = Field(
        "ip-adapter_sdxl.safetensors", description="Which file there."
    )
    image_encoder: str | None = Field(
        None, description="CLIP image encoder; default: in the model, or beside the adapter."
    )
    style_scale: float = Field(1.0, ge=0, le=2, description="Style block (InstantStyle).")
    layout_scale: float = Field(0.0, ge=0, le=2, description="Layout block, 0 = off (paper).")
    steps: int = Field(30, ge=1, le=1000, description="Denoising steps (InstantStyle).")
    guidance: float = Field(5.0, ge=0, le=50, description="Guidance scale (InstantStyle).")
    negative_prompt: str = Field(
        "text, watermark, lowres, low quality, worst quality, deformed, glitch, low contrast,"
        " noisy, saturation, blurry",
        description="What to stay away from (InstantStyle).",
    )
    size: int = Field(1024, ge=16, multiple_of=8, description="Pixels a side while drawing (SDXL).")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="auto: float16 on a GPU, float32 on a CPU."
    )
    device: str = Field("auto", description="torch device; auto: cuda where there is one.")


BACKENDS: dict[str, type[BackendSettings]] = {
    "patch": PatchSettings,
    "statistics": StatisticsSettings,
    "render": RenderSettings,
    "instantstyle": InstantStyleSettings,
}
PATHS = {"instantstyle": ("model", "ip_adapter", "image_encoder")}
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
        raise RecipeError(
            f"{key}: {first['msg'].lower()}, found {found}",
            hint=f"settings of backend {backend}: {known}",
        ) from error


def absolute_paths(backend: str, values: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The settings with paths that lie below `base` (the recipe's folder) made absolute."""
    resolved = dict(values)
    for key in PATHS.get(backend, ()):
        value = resolved.get(key)
        if isinstance(value, str) and (base / value).exists():
            resolved[key] = str((base / value).resolve())
    return resolved
