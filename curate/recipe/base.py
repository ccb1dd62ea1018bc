"""What every part of a recipe is: checked, frozen, unknown keys refused."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


class Settings(BaseModel):
    """A part of a recipe: frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def placed(self, base: Path) -> Self:
        """The same with its relative paths below `base`."""
        return self


def under(base: Path, path: Path | str) -> Path:
    """A path of a recipe, made absolute."""
    return (base / Path(path).expanduser()).resolve()
