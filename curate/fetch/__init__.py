"""Sources of raw pairs: the embedded corpus, URL lists, folders and shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.pair import Pair, Verdict, digest

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe


def fetch_raw(recipe: Recipe, work: Path) -> Iterator[Pair]:
    """All raw pairs of a recipe, ready to be stored: `read_raw`, then ingest."""
    from stylear.curate.fetch.ingest import ingest

    for pair in read_raw(recipe, work):
        yield ingest(pair, recipe.image)


def read_raw(recipe: Recipe, work: Path, only: Container[str] | None = None) -> Iterator[Pair]:
    """All raw pairs of a recipe with the bytes as they came, source by source, each in its own order.

    Every row, file and sample is a pair; what cannot be used is dropped with a reason. Keys are
    unique: what came before is dropped with duplicate-row. The same sources give the same pairs;
    downloads that finished lie in `work` and are used again. With `only`, other keys are not downloaded:
    they come without an image. Raises SourceError and RecipeError.
    """
    from stylear.curate.fetch.ingest import STAGE

    seen: Counter[bytes] = Counter()
    for source in recipe.raw:
        for pair in open_source(source, work, recipe, only):
            token = bytes.fromhex(pair.key)
            repeats = seen[token]
            seen[token] += 1
            if repeats:
                key = digest("repeat", pair.key, repeats)
                verdict = Verdict(False, STAGE, "duplicate-row")
                yield replace(pair, key=key, image=b"", verdict=verdict)
            else:
                yield pair


def open_source(
    source: Any, work: Path, recipe: Recipe, only: Container[str] | None = None
) -> Iterator[Pair]:
    """The pairs of one source with the bytes as they came."""
    from stylear.curate.fetch.folder import folder_pairs
    from stylear.curate.fetch.mini import mini_pairs
    from stylear.curate.fetch.parquet_images import parquet_pairs
    from stylear.curate.fetch.shards import shard_pairs
    from stylear.curate.fetch.urls import url_pairs

    match source.type:
        case "mini":
            return mini_pairs(source, recipe.seed)
        case "folder":
            return folder_pairs(source, recipe.seed)
        case "parquet":
            return parquet_pairs(source, recipe.seed)
        case "shards":
            return shard_pairs(source, recipe.seed)
        case "urls":
            return url_pairs(source, work, recipe.image.max_pixels, only, recipe.seed)
        case other:
            raise AssertionError(f"a source of type {other!r} passed the recipe")
