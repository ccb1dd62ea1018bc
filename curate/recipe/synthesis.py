"""Style references, and what is synthesised from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stylear.curate.recipe.base import PathRule, Settings
from stylear.curate.recipe.synthesizers import backend_settings, map_model_paths
from stylear.curate.recipe.templates import parse_all
from stylear.errors import RecipeError


class MiniReferences(Settings):
    """Embedded style references."""

    type: Literal["mini"]
    names: list[str] | None = Field(None, description="Style names; default: all not held out.")


class FolderReferences(Settings):
    """A folder of style images; a file's stem is its id, `<style>--<n>` groups several of one style."""

    type: Literal["folder"]
    path: Path

    def map_paths(self, rule: PathRule) -> Self:
        return self.model_copy(update={"path": rule.path(self.path)})


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
    contents: int | None = Field(
        None, ge=1, description="Raw pairs or prompts in use, at most; default: all."
    )
    references_per_content: int = Field(
        1, ge=1, description="References that a content meets before the next one comes."
    )
    shard_pairs: int = Field(
        64, ge=1, le=100_000, description="Images in a shard: what a kill can cost (ours)."
    )
    candidates: int = Field(2, ge=1, le=64, description="Images of one (content, reference).")
    prompts: Path | None = Field(None, description="Prompts, one a line, for backends that draw.")
    templates: tuple[str, ...] = Field(
        (), description='Prompts with placeholders, e.g. "{animal} on {place}"; instead of prompts.'
    )
    words: dict[str, Path | tuple[str, ...]] = Field(
        default_factory=dict,
        description="Words of each placeholder: a list, or a file with one a line.",
    )
    destyle: bool = Field(
        False, description="Take words of style out of prompts, as StyleShot does with captions."
    )
    per_style: int | None = Field(
        None, ge=1, description="Contents that each style meets (paper: 200); default: any number."
    )
    per_style_min: int = Field(
        0, ge=0, description="Stop when a style meets fewer contents than this."
    )
    styles: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict,
        description="In place of per_style for single styles; 0 leaves a style out.",
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="The backend's own.")

    @field_validator("words", mode="before")
    @classmethod
    def _words(cls, given: Any) -> Any:
        for name, words in given.items() if isinstance(given, dict) else ():
            listed = isinstance(words, list | tuple) and all(isinstance(w, str) for w in words)
            if not isinstance(words, str | Path) and not (words and listed):
                raise RecipeError(
                    f"synthesize.words.{name}: expected a list of words, or a file with one a line,"
                    f" found {words!r}"
                )
        return given

    @model_validator(mode="after")
    def _resolve(self) -> SynthesizeSettings:
        resolved = backend_settings(self.backend, self.settings).model_dump(mode="json")
        self.settings.clear()
        self.settings.update(resolved)
        parse_all(self.templates, self.words)
        if self.templates and self.prompts is not None:
            raise RecipeError(
                "synthesize.templates: expected prompts or templates, found both",
                hint="remove one of them",
            )
        return self

    def map_paths(self, rule: PathRule) -> Self:
        words = {
            name: rule.path(given) if isinstance(given, Path) else given
            for name, given in self.words.items()
        }
        update = {
            "prompts": None if self.prompts is None else rule.path(self.prompts),
            "words": words,
            "settings": map_model_paths(self.backend, self.settings, rule),
        }
        return self.model_copy(update=update)
