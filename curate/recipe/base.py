"""What every part of a recipe is: checked, frozen, unknown keys refused, its paths replaceable."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from pydantic import BaseModel, ConfigDict

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


class PathRule(Protocol):
    """How `Settings.map_paths` rewrites what names files."""

    def path(self, path: Path | str) -> Path:
        """Rewrite a value that is a path."""
        ...

    def name(self, name: str) -> str:
        """Rewrite a value that is a path or the name of a model."""
        ...


class Settings(BaseModel):
    """A part of a recipe: frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def map_paths(self, rule: PathRule) -> Self:
        """The same settings with every path rewritten by `rule`; override where there are paths."""
        return self


@dataclass(frozen=True, slots=True)
class AbsolutePaths:
    """Relative paths start at `base`. A model's name is a path where a file of that name exists."""

    base: Path

    def path(self, path: Path | str) -> Path:
        path, base = Path(path).expanduser(), self.base
        while path.parts[:1] == ("..",):  # links are kept as they are, so `resolve` is not used
            path, base = Path(*path.parts[1:]), base.parent
        return base / path

    def name(self, name: str) -> str:
        return str(self.path(name)) if (self.base / name).exists() else name


@dataclass(frozen=True, slots=True)
class RelativePaths:
    """Absolute paths as seen from `base`: the inverse of `AbsolutePaths`."""

    base: Path

    def path(self, path: Path | str) -> Path:
        return Path(os.path.relpath(path, self.base)) if Path(path).is_absolute() else Path(path)

    def name(self, name: str) -> str:
        return self.path(name).as_posix() if Path(name).is_absolute() else name


@dataclass(frozen=True, slots=True)
class PathNames:
    """Only the last part of each path: what stays the same when files move."""

    def path(self, path: Path | str) -> Path:
        return Path(Path(path).name)

    def name(self, name: str) -> str:
        return Path(name).name if Path(name).is_absolute() else name
