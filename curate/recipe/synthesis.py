"""Style references, and what is synthesised from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from curate.recipe.base import Settings, under
from curate.synthesize.settings import absolute_paths, backend_settings


class MiniReferences(Settings):
    """Embedded style references."""

    type: Literal["mini"]
    names: list[str] | None = Field(None, description="Style names; default: all not held out.")


class FolderReferences(Settings):
    """A folder of style images; a file's stem is its id, `<style>--<n>` groups several of one style."""

    type: Literal["folder"]
    path: Path

    def placed(self, base: Path) -> Self:
        return self.model_copy(update={"path": under(base, self.path)})


REFERENCES = (MiniReferences, FolderReferences)
References = Annotated[MiniReferences | FolderReferences, Field(discriminator="type")]


class SynthesizeSettings(Settings):
    """What is synthesised: contents x references x candidates."""

    backend: Literal[
        "patch",
        "statistics",
        "render",
        "instantstyle",
        "ip-adapter",
        "style-aligned",
        "flux-redux",
        "pipeline",
    ] = "patch"
    contents: int | None = Field(None, ge=1, description="Raw pairs to stylise; default: all.")
    references_per_content: int = Field(1, ge=1, description="References that each content meets.")
    shard_pairs: int = Field(
        64, ge=1, le=100_000, description="Images in a shard: what a kill can cost (ours)."
    )
    candidates: int = Field(2, ge=1, le=64, description="Images of one (content, reference).")
    prompts: Path | None = Field(None, description="Prompts, one a line, for backends that draw.")
    settings: dict[str, Any] = Field(default_factory=dict, description="The backend's own.")

    @model_validator(mode="after")
    def _resolve(self) -> SynthesizeSettings:
        resolved = backend_settings(self.backend, self.settings).model_dump(mode="json")
        self.settings.clear()
        self.settings.update(resolved)
        return self

    def placed(self, base: Path) -> Self:
        prompts = None if self.prompts is None else under(base, self.prompts)
        settings = absolute_paths(self.backend, self.settings, base)
        return self.model_copy(update={"prompts": prompts, "settings": settings})
