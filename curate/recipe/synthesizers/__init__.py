"""The settings of each synthesiser, `synthesize.settings` in a recipe. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic import ValidationError

from stylear.curate.entry_points import SYNTHESIZERS, describe_kinds, find_plugin, plugin_hint
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
    "find_settings_model",
    "map_model_paths",
    "needs_content",
    "parse_backend_settings",
    "uses_gpu",
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


def find_settings_model(backend: str) -> type[BackendSettings]:
    """The settings of a built-in backend or of a plug-in. Raises RecipeError for an unknown one."""
    if backend in BACKENDS:
        return BACKENDS[backend]
    plugin = find_plugin(SYNTHESIZERS, backend)
    if plugin is None:
        raise RecipeError(
            f"synthesize.backend: expected one of {describe_kinds(SYNTHESIZERS, BACKENDS)},"
            f" found {backend!r}",
            hint=plugin_hint(SYNTHESIZERS),
        )
    return cast("type[BackendSettings]", plugin.settings(BackendSettings))


def needs_content(backend: str) -> bool:
    """Whether a backend stylises a content image; the others draw a prompt."""
    if backend in BACKENDS:
        return backend in NEEDS_CONTENT
    plugin = find_plugin(SYNTHESIZERS, backend)
    return bool(plugin is not None and getattr(plugin.target, "needs_content", False))


def uses_gpu(backend: str) -> bool:
    """Whether a backend runs on a GPU if there is one: one worker for each."""
    if backend in BACKENDS:
        return backend not in NEEDS_CONTENT
    plugin = find_plugin(SYNTHESIZERS, backend)
    return bool(plugin is not None and getattr(plugin.target, "uses_gpu", False))


def parse_backend_settings(backend: str, values: Mapping[str, Any]) -> BackendSettings:
    """The checked settings of `backend` with defaults. Raises RecipeError that names the key."""
    model = find_settings_model(backend)
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
    for key in find_settings_model(backend).paths:
        if isinstance(value := changed.get(key), str):
            changed[key] = rule.map_name(value)
    return changed
