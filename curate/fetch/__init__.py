"""Sources of raw pairs: the embedded corpus, URL lists, folders and shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.console import say
from stylear.curate.corpus.tombstones import NONE, Tombstones
from stylear.errors import SourceEmpty
from stylear.pair import Pair, Verdict, digest

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe


def fetch_raw(recipe: Recipe, work: Path) -> Iterator[Pair]:
    """All raw pairs of a recipe, ready to be stored: `read_raw`, then ingest."""
    from stylear.curate.fetch.ingest import ingest

    for pair in read_raw(recipe, work):
        yield ingest(pair, recipe.image)


def read_raw(
    recipe: Recipe,
    work: Path | None,
    only: Container[str] | None = None,
    *,
    allow_empty: bool = False,
    tombstones: Tombstones = NONE,
) -> Iterator[Pair]:
    """All raw pairs of a recipe with their original bytes, source by source, each in its own order.

    Every row, file and sample is a pair; one that cannot be used is dropped with a reason. Keys are unique:
    a repeated row is dropped with duplicate-row. The same sources give the same pairs. Finished downloads are
    kept in `work` and reused. Pairs come without an image where nothing is downloaded: keys outside `only`,
    URLs that match one of the `tombstones`, and everything if there is no `work`. Raises SourceError and
    RecipeError, and SourceEmpty for a source without a pair, unless `allow_empty`: then it warns and goes on
    to the next source.
    """
    from stylear.curate.fetch.ingest import STAGE

    seen: Counter[bytes] = Counter()
    for number, source in enumerate(recipe.raw):
        pairs = open_source(source, work, recipe, only, tombstones)
        for pair in require_pairs(pairs, number, source, allow_empty=allow_empty):
            token = bytes.fromhex(pair.key)
            repeats = seen[token]
            seen[token] += 1
            if repeats:
                key = digest("repeat", pair.key, repeats)
                verdict = Verdict(False, STAGE, "duplicate-row")
                yield replace(pair, key=key, image=b"", verdict=verdict)
            else:
                yield pair


def require_pairs(
    pairs: Iterator[Pair], number: int, source: Any, *, allow_empty: bool
) -> Iterator[Pair]:
    """The pairs of a source. Raises SourceEmpty when there is none, unless `allow_empty`."""
    count = 0
    try:
        for pair in pairs:
            count += 1
            yield pair
        if not count:
            raise SourceEmpty(f"{source_name(source)}: expected pairs, found none")
    except SourceEmpty as error:
        if count:
            raise
        if not allow_empty:
            raise SourceEmpty(
                f"raw.{number} ({source.type}): {error.message}",
                hint=f"{error.hint or 'check the source'}; --allow-empty accepts a source without pairs",
            ) from error
        say(f"warning: raw.{number} ({source.type}) is empty: {error.message}")


def source_name(source: Any) -> str:
    """The path that a source reads, for messages."""
    return str(getattr(source, "path", "embedded drawings"))


def open_source(
    source: Any,
    work: Path | None,
    recipe: Recipe,
    only: Container[str] | None = None,
    tombstones: Tombstones = NONE,
) -> Iterator[Pair]:
    """The pairs of one source with their original bytes."""
    from stylear.curate.fetch.folder import read_folder
    from stylear.curate.fetch.mini import read_mini
    from stylear.curate.fetch.parquet_images import read_parquet_images
    from stylear.curate.fetch.shards import read_tars
    from stylear.curate.fetch.urls import read_urls

    match source.type:
        case "mini":
            return read_mini(source, recipe.seed)
        case "folder":
            return read_folder(source, recipe.seed, recipe.base)
        case "parquet":
            return read_parquet_images(source, recipe.seed)
        case "shards":
            return read_tars(source, recipe.seed)
        case "urls":
            return read_urls(source, work, recipe.image.max_pixels, only, recipe.seed, tombstones)
        case other:
            raise AssertionError(f"a source of type {other!r} passed the recipe")
