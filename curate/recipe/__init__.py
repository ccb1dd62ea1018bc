"""The recipe: the YAML that says what corpus to build, checked, with every default spelled out."""

from stylear.curate.recipe.load import check_recipe, load_recipe
from stylear.curate.recipe.recipe import (
    SCHEMA,
    Recipe,
    dump_recipe,
    override_downloads,
    recipe_schema,
)
from stylear.curate.recipe.rules import FilterSettings, HumanRule, Threshold
from stylear.curate.recipe.scores import ClipImageScore, ClipTextScore, PhashScore, TextureScore
from stylear.curate.recipe.sources import (
    FolderSource,
    ImageSettings,
    MiniSource,
    ShardsSource,
    UrlsSource,
)

__all__ = [
    "SCHEMA",
    "ClipImageScore",
    "ClipTextScore",
    "FilterSettings",
    "FolderSource",
    "HumanRule",
    "ImageSettings",
    "MiniSource",
    "PhashScore",
    "Recipe",
    "ShardsSource",
    "TextureScore",
    "Threshold",
    "UrlsSource",
    "check_recipe",
    "dump_recipe",
    "load_recipe",
    "override_downloads",
    "recipe_schema",
]
