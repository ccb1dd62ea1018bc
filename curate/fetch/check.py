"""Checks of sources without fetching them: can each be read, and does it have what it needs?"""

from __future__ import annotations

from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.fetch.folder import EMBEDDED, choose_lists
from stylear.curate.fetch.folder_files import find_images
from stylear.curate.fetch.lists import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    URL_COLUMNS,
    count_rows,
    find_lists,
    read_list,
)
from stylear.curate.fetch.mini import read_mini
from stylear.curate.fetch.parquet_images import read_rows
from stylear.curate.fetch.shards import read_tars, tar_paths
from stylear.curate.fetch.subset import Subset
from stylear.curate.fetch.urls import column_names, list_format
from stylear.errors import SourceEmpty

if TYPE_CHECKING:
    from stylear.curate.recipe import FolderSource, Recipe, ShardsSource, UrlsSource
    from stylear.curate.recipe.sources import ListSettings, ParquetSource

SMALL_BYTES = (
    16_000_000  # lists and tars up to this size are read to count their pairs (our choice)
)


@dataclass(frozen=True, slots=True)
class SourceSize:
    """The size of a source, as far as it is known without reading all of it."""

    pairs: int | None
    bytes: int | None = None  # of its images


def check_source(source: Any, recipe: Recipe) -> SourceSize:
    """The size of a source. Raises the same errors as fetching it: SourceError, SourceEmpty, RecipeError."""
    match source.type:
        case "urls":
            size = check_urls(source)
        case "folder":
            size = check_folder(source)
        case "parquet":
            size = check_parquet(source)
        case "shards":
            size = check_shards(source)
        case _:
            size = SourceSize(sum(1 for _ in read_mini(source, recipe.seed)))
    if getattr(source, "uids", None) is not None:
        Subset(source.uids)
        size = SourceSize(None, size.bytes)  # only some of the rows
    if size.pairs == 0:
        raise SourceEmpty(f"{getattr(source, 'path', 'mini')}: expected pairs, found none")
    if size.pairs is not None and source.limit is not None:
        return SourceSize(min(size.pairs, source.limit), size.bytes)
    return size


def check_urls(source: UrlsSource) -> SourceSize:
    """Count the rows of a list of URLs, each part of which must have the columns."""
    paths = find_lists(source.path)
    urls = column_names(source.url_column, URL_COLUMNS)
    rows = [count_list(path, source, urls, "url", can_be_empty=len(paths) > 1) for path in paths]
    return SourceSize(total(rows))


def check_folder(source: FolderSource) -> SourceSize:
    """Count the images of a folder, whose caption lists must have the columns."""
    images = find_images(source.path)
    lists = [] if source.captions == EMBEDDED else choose_lists(source.path, source)
    for path in lists:
        count_list(path, source, IMAGE_COLUMNS, "image")
    sizes = [file_bytes(source.path / image.name) for image in images]
    return SourceSize(len(images), sum(sizes))


def check_parquet(source: ParquetSource) -> SourceSize:
    """Count the rows of Parquet files with images, each of which must have the columns."""
    paths = find_lists(source.path)
    for path in paths:
        next(read_rows(path, source), None)
    return SourceSize(total([count_rows(path) for path in paths]), sum(map(file_bytes, paths)))


def check_shards(source: ShardsSource) -> SourceSize:
    """Add up the sizes of tars; count the samples of small ones, and read the first sample of others.

    Warnings about single samples are suppressed here; the fetch repeats them.
    """
    paths = tar_paths(source.path)
    num_bytes = sum(map(file_bytes, paths))
    everything = source.model_copy(update={"uids": None})
    with redirect_stderr(StringIO()):
        for path in paths:
            if source.on_bad_shard == "stop" and not path.is_file():
                next(read_tars(source.model_copy(update={"path": str(path)})))
        if num_bytes <= SMALL_BYTES:
            return SourceSize(sum(1 for _ in read_tars(everything)), num_bytes)
        sample = next(read_tars(everything), None)
    return SourceSize(0 if sample is None else None, num_bytes)


def count_list(
    path: Path,
    source: ListSettings,
    names: tuple[str, ...],
    what: str,
    *,
    can_be_empty: bool = False,
) -> int | None:
    """Check the columns of a list and count its rows; None for a large one, which is not read to its end."""
    rows = read_list(
        path,
        names,
        column_names(source.caption_column, CAPTION_COLUMNS),
        what,
        list_format(source),
        can_be_empty=can_be_empty,
    )
    first = sum(1 for _ in islice(rows, 1))
    if (known := count_rows(path)) is not None or not first:
        return known or first
    return None if file_bytes(path) > SMALL_BYTES else first + sum(1 for _ in rows)


def total(counts: list[int | None]) -> int | None:
    """The sum; None if one of the counts is unknown."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def file_bytes(path: Path) -> int:
    """The size of a file; 0 if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
