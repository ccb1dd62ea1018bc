"""The base of all parts of a recipe: frozen, checked, unknown keys refused, paths rewritable."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from pydantic import BaseModel, ConfigDict

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


class PathRule(Protocol):
    """How `Settings.map_paths` rewrites paths and names of models."""

    def map_path(self, path: Path | str) -> Path:
        """Rewrite a value that is a path."""
        ...

    def map_name(self, name: str) -> str:
        """Rewrite a value that is either a path or the name of a model."""
        ...


class Settings(BaseModel):
    """A part of a recipe: frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def map_paths(self, rule: PathRule) -> Self:
        """The same settings with every path rewritten by `rule`; parts with paths override this."""
        return self


@dataclass(frozen=True, slots=True)
class AbsolutePaths:
    """Makes relative paths absolute below `base`. A model's name is a path if such a file exists."""

    base: Path

    def map_path(self, path: Path | str) -> Path:
        path, base = Path(path).expanduser(), self.base
        while path.parts[:1] == ("..",):  # links are kept as they are, so `resolve` is not used
            path, base = Path(*path.parts[1:]), base.parent
        return base / path

    def map_name(self, name: str) -> str:
        return str(self.map_path(name)) if (self.base / name).exists() else name


@dataclass(frozen=True, slots=True)
class RelativePaths:
    """Makes absolute paths relative to `base`: the inverse of `AbsolutePaths`."""

    base: Path

    def map_path(self, path: Path | str) -> Path:
        return Path(os.path.relpath(path, self.base)) if Path(path).is_absolute() else Path(path)

    def map_name(self, name: str) -> str:
        return self.map_path(name).as_posix() if Path(name).is_absolute() else name


def strip_folders(path: Path | str, base: Path | None) -> str:
    """The last component of a path, which stays the same when files are moved.

    The folder of the recipe itself (`base`) and those above it become `.`: their names must not matter.
    """
    if base is not None and Path(path) in (base, *base.parents):
        return "."
    return Path(path).name


@dataclass(frozen=True, slots=True)
class FileNamesOnly:
    """Keeps only the last component of each path, which stays the same when files are moved."""

    base: Path | None = None

    def map_path(self, path: Path | str) -> Path:
        return Path(strip_folders(path, self.base))

    def map_name(self, name: str) -> str:
        return Path(name).name if Path(name).is_absolute() else name
