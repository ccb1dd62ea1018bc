"""The recipe: the YAML that says what corpus to build, checked, with every default spelled out."""

from curate.recipe.load import check_recipe, load_recipe
from curate.recipe.rules import FilterSettings, Threshold
from curate.recipe.scores import ClipImageScore, ClipTextScore, PhashScore, TextureScore
from curate.recipe.sources import (
    FolderSource,
    ImageSettings,
    MiniSource,
    ShardsSource,
    UrlsSource,
)
from curate.recipe.whole import SCHEMA, Recipe, dump_recipe, recipe_schema, with_downloads

__all__ = [
    "SCHEMA",
    "ClipImageScore",
    "ClipTextScore",
    "FilterSettings",
    "FolderSource",
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
    "recipe_schema",
    "with_downloads",
]
