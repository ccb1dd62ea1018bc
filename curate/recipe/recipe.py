"""The whole recipe, and the checks across its parts."""

from __future__ import annotations

import difflib
import ipaddress
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, PrivateAttr, model_validator

import stylear
from stylear.curate.recipe.base import NAME, AbsolutePaths, PathRule, RelativePaths, Settings
from stylear.curate.recipe.rules import FilterSettings, MixSettings, PairsSettings
from stylear.curate.recipe.scores import AnyScore
from stylear.curate.recipe.sources import ImageSettings, Source
from stylear.curate.recipe.synthesis import References, SynthesizeSettings
from stylear.errors import UsageError

SCHEMA = Path(stylear.__file__).parent / "manifests" / "recipe.schema.json"


class Recipe(Settings):
    """A whole recipe. Its paths are absolute once it is loaded."""

    _base: Path | None = PrivateAttr(None)

    name: str = Field(pattern=NAME, description="Name of the corpus.")
    seed: int = Field(0, ge=0, lt=2**53)
    image: ImageSettings = ImageSettings()
    raw: tuple[Source, ...] = Field(min_length=1)
    references: tuple[References, ...] = ()
    synthesize: SynthesizeSettings = SynthesizeSettings()
    score: tuple[AnyScore, ...] = ()
    filter: FilterSettings = FilterSettings()
    mix: MixSettings = MixSettings()
    pairs: PairsSettings = PairsSettings()

    @model_validator(mode="after")
    def _check_cross_references(self) -> Recipe:
        names = [score.name for score in self.score]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"score: two scorers are called {name!r}")
        used = [t.score for t in (*self.filter.thresholds, *self.filter.votes)]
        used += [n for n in (self.filter.text_score, self.filter.style_score) if n is not None]
        for name in used:
            if name not in names:
                raise ValueError(f"filter: no scorer is called {name!r}{_suggest(name, names)}")
        if self.image.fit == "source" and (self.references or self.score):
            raise ValueError(
                "image.fit: source stores undecoded images of any size, expected no"
                " references and no score beside it"
            )
        if "synthesize" in self.model_fields_set and not self.references:
            raise ValueError("references: synthesize needs at least one style reference")
        return self

    @property
    def base(self) -> Path | None:
        """The base folder of relative paths; None for a recipe that was built in memory."""
        return self._base

    def map_paths(self, rule: PathRule) -> Self:
        update = {
            "raw": tuple(source.map_paths(rule) for source in self.raw),
            "references": tuple(source.map_paths(rule) for source in self.references),
            "score": tuple(score.map_paths(rule) for score in self.score),
            "synthesize": self.synthesize.map_paths(rule),
        }
        return self.model_copy(update=update)

    def with_base(self, base: Path) -> Self:
        """The same recipe with its relative paths made absolute below `base`."""
        recipe = self.map_paths(AbsolutePaths(base))
        recipe._base = base
        return recipe


def override_downloads(
    recipe: Recipe, min_success: float | None = None, allow_networks: Sequence[str] = ()
) -> Recipe:
    """The recipe with another `min_success` and more allowed networks, for each of its URL lists.

    Raises UsageError for an invalid network.
    """
    for network in allow_networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise UsageError(
                f"--allow-network {network}: expected a network such as 10.1.0.0/16: {error}"
            ) from error
    raw: list[Any] = []
    for source in recipe.raw:
        if source.type == "urls":
            networks = dict.fromkeys((*source.allow_networks, *allow_networks))
            share = source.min_success if min_success is None else min_success
            changes = {"min_success": share, "allow_networks": tuple(networks)}
            source = source.model_copy(update=changes)
        raw.append(source)
    return recipe.model_copy(update={"raw": tuple(raw)})


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with all defaults filled in and paths relative to `recipe.base`.

    Loading it with that base gives the same recipe.
    """
    if recipe.base is not None:
        recipe = recipe.map_paths(RelativePaths(recipe.base))
    left_out = None if recipe.references else {"synthesize"}
    values = recipe.model_dump(mode="json", exclude=left_out)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def recipe_schema() -> str:
    """The JSON schema of recipes as text, the content of `manifests/recipe.schema.json`."""
    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _suggest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    if close:
        return f"; did you mean {close[0]}?"
    return f" (scorers: {', '.join(known) or 'none'})"
