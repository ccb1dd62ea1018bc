"""The settings of each synthesiser, `synthesize.settings` in a recipe. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from stylear.curate.recipe.base import PathRule
from stylear.curate.recipe.synthesizers.base import BackendSettings
from stylear.curate.recipe.synthesizers.diffusion import (
    DiffusionSettings,
    InstantStyleSettings,
    IpAdapterSettings,
    SdxlSettings,
)
from stylear.curate.recipe.synthesizers.flux_redux import FluxReduxSettings
from stylear.curate.recipe.synthesizers.pipeline import PipelineSettings
from stylear.curate.recipe.synthesizers.style_aligned import StyleAlignedSettings
from stylear.curate.recipe.synthesizers.texture import (
    ContentImageSettings,
    PatchSettings,
    RenderSettings,
    StatisticsSettings,
)
from stylear.errors import RecipeError

__all__ = [
    "BACKENDS",
    "NEEDS_CONTENT",
    "BackendSettings",
    "ContentImageSettings",
    "DiffusionSettings",
    "FluxReduxSettings",
    "InstantStyleSettings",
    "IpAdapterSettings",
    "PatchSettings",
    "PipelineSettings",
    "RenderSettings",
    "SdxlSettings",
    "StatisticsSettings",
    "StyleAlignedSettings",
    "backend_settings",
    "map_model_paths",
]

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
)  # these stylise an image; the others draw a prompt


def backend_settings(backend: str, values: Mapping[str, Any]) -> BackendSettings:
    """The checked settings of `backend` with defaults. Raises RecipeError that names the key."""
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


def map_model_paths(backend: str, values: Mapping[str, Any], rule: PathRule) -> dict[str, Any]:
    """The settings with the paths of model files rewritten by `rule`."""
    changed = dict(values)
    for key in BACKENDS[backend].paths:
        if isinstance(value := changed.get(key), str):
            changed[key] = rule.map_name(value)
    return changed
