"""Settings of style references and of synthesis."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stylear.curate.recipe.base import PathRule, Settings
from stylear.curate.recipe.synthesizers import BACKENDS, map_model_paths, parse_backend_settings
from stylear.curate.recipe.templates import parse_templates
from stylear.errors import RecipeError


class MiniReferences(Settings):
    """Embedded style references."""

    type: Literal["mini"]
    names: list[str] | None = Field(
        None, description="Names of styles; default: all that are not held out."
    )


class FolderReferences(Settings):
    """A folder of style images. The file stem is the id; `<style>--<n>` groups images of one style."""

    type: Literal["folder"]
    path: Path

    def map_paths(self, rule: PathRule) -> Self:
        return self.model_copy(update={"path": rule.map_path(self.path)})


REFERENCES = (MiniReferences, FolderReferences)
References = Annotated[MiniReferences | FolderReferences, Field(discriminator="type")]


class SynthesizeSettings(Settings):
    """Synthesis: contents x references x candidates."""

    backend: str = Field(
        "patch",
        description="The synthesiser that draws the images: a built-in one, or the name of a plug-in.",
        json_schema_extra={"anyOf": [{"enum": list(BACKENDS)}, {"type": "string"}]},
    )
    contents: int | None = Field(
        None, ge=1, description="Maximum number of raw pairs or prompts to use; default: all."
    )
    references_per_content: int = Field(
        1, ge=1, description="Number of references that each content is combined with."
    )
    shard_pairs: int = Field(
        64,
        ge=1,
        le=100_000,
        description="Images per shard; a killed run repeats at most the shard in progress.",
    )
    candidates: int = Field(
        2, ge=1, le=64, description="Number of images of each (content, reference)."
    )
    prompts: Path | None = Field(
        None, description="File of prompts, one per line, for backends that draw prompts."
    )
    templates: tuple[str, ...] = Field(
        (), description='Prompts with placeholders, e.g. "{animal} on {place}", instead of a file.'
    )
    words: dict[str, Path | tuple[str, ...]] = Field(
        default_factory=dict,
        description="Words of each placeholder: a list, or a file with one per line.",
    )
    destyle: bool = Field(
        False, description="Remove style words from prompts, as StyleShot does with captions."
    )
    per_style: int | None = Field(
        None, ge=1, description="Number of contents per style (paper: 200); default: no target."
    )
    per_style_min: int = Field(
        0, ge=0, description="Stop if a style gets fewer contents than this."
    )
    styles: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict,
        description="Overrides of per_style for single styles; 0 leaves a style out.",
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="Settings of the backend.")

    @field_validator("words", mode="before")
    @classmethod
    def _check_words(cls, lists: Any) -> Any:
        for name, words in lists.items() if isinstance(lists, dict) else ():
            listed = isinstance(words, list | tuple) and all(isinstance(w, str) for w in words)
            if not isinstance(words, str | Path) and not (words and listed):
                raise RecipeError(
                    f"synthesize.words.{name}: expected a list of words, or a file with one per line,"
                    f" found {words!r}"
                )
        return lists

    @model_validator(mode="after")
    def _resolve(self) -> SynthesizeSettings:
        resolved = parse_backend_settings(self.backend, self.settings).model_dump(mode="json")
        self.settings.clear()
        self.settings.update(resolved)
        parse_templates(self.templates, self.words)
        if self.templates and self.prompts is not None:
            raise RecipeError(
                "synthesize.templates: expected prompts or templates, found both",
                hint="remove one of them",
            )
        return self

    def map_paths(self, rule: PathRule) -> Self:
        words = {
            name: rule.map_path(words_or_path) if isinstance(words_or_path, Path) else words_or_path
            for name, words_or_path in self.words.items()
        }
        update = {
            "prompts": None if self.prompts is None else rule.map_path(self.prompts),
            "words": words,
            "settings": map_model_paths(self.backend, self.settings, rule),
        }
        return self.model_copy(update=update)
