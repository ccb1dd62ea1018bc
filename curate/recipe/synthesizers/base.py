"""Settings that every synthesiser has, and which of them decide an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


class BackendSettings(BaseModel):
    """Settings that every synthesiser has; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: ClassVar[tuple[str, ...]] = ()  # settings that name model files
    speed: ClassVar[frozenset[str]] = frozenset({"batch_size"})  # settings that change no image

    batch_size: int = Field(16, ge=1, description="Images in one batch; changes no image.")

    def deciding(self) -> dict[str, Any]:
        """What decides an image: no speed settings, and of model files the name, not the place."""
        values = self.model_dump(mode="json", exclude=set(self.speed))
        return values | {k: Path(values[k]).name for k in self.paths if values[k] is not None}
