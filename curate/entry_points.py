"""Plug-ins: scorers and synthesisers of other distributions, found through their entry points.

A recipe names a plug-in like a built-in kind. Nothing is looked up for a built-in kind, and only the plug-ins
that a recipe names are imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from pydantic import BaseModel

from stylear.errors import PluginError

Group = Literal["stylear.scorers", "stylear.synthesizers"]
SCORERS: Group = "stylear.scorers"
SYNTHESIZERS: Group = "stylear.synthesizers"


@dataclass(frozen=True, slots=True)
class Plugin:
    """A loaded plug-in: the class that its entry point names, and the distribution that it comes from."""

    group: Group
    name: str
    distribution: str
    version: str
    target: Any

    @property
    def origin(self) -> str:
        """The distribution and its version: what decides the plug-in's code."""
        return f"{self.distribution} {self.version}"

    def error(self, problem: str, hint: str | None = None) -> PluginError:
        """An error about this plug-in."""
        return _error(self.group, self.name, self.origin, problem, hint)

    def settings(self, base: type[BaseModel]) -> type[BaseModel]:
        """The model of the plug-in's settings. Raises PluginError unless it is a subclass of `base`."""
        model = getattr(self.target, "Settings", None)
        if not (isinstance(model, type) and issubclass(model, base)):
            raise self.error(
                f"expected an attribute Settings, a subclass of stylear.plugins.{base.__name__},"
                f" found {model!r}"
            )
        return model


def installed_plugins(group: Group) -> dict[str, list[EntryPoint]]:
    """The entry points of a group by name; nothing is imported."""
    return _scan(group, tuple(sys.path))


@lru_cache(maxsize=8)
def _scan(group: Group, path: tuple[str, ...]) -> dict[str, list[EntryPoint]]:
    """The entry points on an import path; a scan takes milliseconds."""
    by_name: dict[str, dict[tuple[str, str], EntryPoint]] = {}
    for point in entry_points(group=group):
        by_name.setdefault(point.name, {})[_origin(point), point.value] = point
    return {name: list(points.values()) for name, points in sorted(by_name.items())}


def find_plugin(group: Group, name: str) -> Plugin | None:
    """The plug-in of a name, imported; None if no installed distribution has it.

    Raises PluginError if two distributions have it, if its import fails, or if it is not a class.
    """
    return _find(group, name, tuple(sys.path))


@lru_cache(maxsize=64)
def _find(group: Group, name: str, path: tuple[str, ...]) -> Plugin | None:
    points = installed_plugins(group).get(name, [])
    if not points:
        return None
    if len(points) > 1:
        raise PluginError(
            f"{group}: {name} is provided by {' and by '.join(_origin(p) for p in points)}",
            hint="uninstall one of them",
        )
    [point] = points
    try:
        target = point.load()
    except Exception as error:  # code of another distribution: anything may come
        reason = str(error).strip().partition("\n")[0]
        raise _error(
            group,
            point.name,
            _origin(point),
            f"{point.value} cannot be imported: {type(error).__name__}: {reason}",
            "repair or uninstall that distribution, or remove the plug-in from the recipe",
        ) from error
    dist = point.dist
    plugin = Plugin(
        group,
        point.name,
        dist.name if dist is not None else "unknown",
        dist.version if dist is not None else "unknown",
        target,
    )
    if not isinstance(target, type):
        raise plugin.error(f"expected {point.value} to be a class, found {target!r}")
    return plugin


def plugin_origin(group: Group, name: str, built_in: Iterable[str]) -> dict[str, str]:
    """{"plugin": distribution and version} for what decides an output; empty for a built-in kind."""
    if name in set(built_in) or (plugin := find_plugin(group, name)) is None:
        return {}
    return {"plugin": plugin.origin}


def describe_kinds(group: Group, built_in: Iterable[str]) -> str:
    """The built-in kinds and the installed plug-ins, for errors."""
    plugins = ", ".join(installed_plugins(group))
    return ", ".join(built_in) + (f", or an installed plug-in ({plugins})" if plugins else "")


def plugin_hint(group: Group) -> str:
    """What to do about a kind that is neither built in nor installed."""
    if installed_plugins(group):
        return "check the spelling, or install the plug-in that provides it"
    return f"check the spelling, or install the plug-in that provides it; {group} has none so far"


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "unknown"


def _error(group: Group, name: str, origin: str, problem: str, hint: str | None) -> PluginError:
    return PluginError(
        f"plug-in {name} of {origin} ({group}): {problem}",
        hint=hint or "see docs/plugins.md for the interface, or ask its author for a new version",
    )
