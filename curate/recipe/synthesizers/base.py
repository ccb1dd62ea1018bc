"""The settings that all synthesisers have, and which of them affect the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


class BackendSettings(BaseModel):
    """The settings that all synthesisers have; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: ClassVar[tuple[str, ...]] = ()  # settings that name model files
    speed: ClassVar[frozenset[str]] = frozenset(
        {"batch_size"}
    )  # settings that do not affect the images

    batch_size: int = Field(16, ge=1, description="Images per batch; does not affect the images.")

    def result_settings(self) -> dict[str, Any]:
        """The settings that affect the images: none about speed, and only the names of model files."""
        values = self.model_dump(mode="json", exclude=set(self.speed))
        return values | {k: Path(values[k]).name for k in self.paths if values[k] is not None}
