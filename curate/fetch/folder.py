"""The folder source: images on disk, with captions in a list or beside them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from stylear.console import say
from stylear.curate.corpus.captions import clean_caption, clean_details, plain_source
from stylear.curate.fetch.captions import caption_reason, choose_captions
from stylear.curate.fetch.embedded import read_prompt
from stylear.curate.fetch.folder_files import JUNK_FOLDERS, CaptionFiles, FolderFile, find_images
from stylear.curate.fetch.folder_names import ImageIndex
from stylear.curate.fetch.ingest import STAGE
from stylear.curate.fetch.lists import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    KINDS,
    find_lists,
    list_kind,
    read_list,
)
from stylear.curate.fetch.urls import column_names, list_format
from stylear.curate.recipe.base import strip_folders
from stylear.errors import SourceError
from stylear.pair import Origin, Pair, content_id, digest

if TYPE_CHECKING:
    from stylear.curate.recipe import FolderSource

# the latter three: Hugging Face
DEFAULT_LISTS = ("captions.csv", "metadata.csv", "metadata.jsonl", "metadata.parquet")
EMBEDDED = "embedded"  # captions: from the text chunks of the pictures
REPEATS = re.compile(r"(\d+)_.+")  # folders of sd-scripts: 10_name


@dataclass(frozen=True, slots=True)
class Item:
    """A future pair: its image, raw caption, further columns, and a rejection reason, if any."""

    name: str
    caption: object
    columns: dict[str, object] = field(default_factory=dict)
    reason: str | None = None


def read_folder(source: FolderSource, seed: int = 0, base: Path | None = None) -> Iterator[Pair]:
    """A pair for every row of the caption lists, then for every image that they do not name.

    Without a list (`captions` unset and no captions.csv, metadata.csv, metadata.jsonl or
    metadata.parquet): a pair for every image, by name, captioned by the file beside it. Dropped:
    no-caption, caption-not-text, caption-not-utf8, missing-file, ambiguous-file, outside-folder,
    unreadable-file, too-large, malformed-row, not-utf8, extra-caption (a further caption of the same
    image, unless `captions_per_image: all`). Raises SourceError for a folder that is missing or empty
    and for a list that cannot be read.
    """
    folder = source.path
    images = find_images(folder)
    warn_repeats(folder, images)
    warn_links(folder, images, source)
    lists = [] if source.captions == EMBEDDED else choose_lists(folder, source)
    items: Iterator[Item]
    if source.captions == EMBEDDED:
        items = (Item(image.name, EMBEDDED) for image in images)
    elif lists:
        items = read_items(source, lists, images)
    else:
        files = CaptionFiles(
            folder.resolve(),
            source.caption_files,
            source.encoding,
            follow_links=source.follow_links,
        )
        items = (Item(image.name, *read_beside(files, image.name)) for image in images)
    yield from make_pairs(folder.resolve(), strip_folders(folder, base), items, source, seed)


def read_beside(files: CaptionFiles, name: str) -> tuple[object, dict[str, object], str | None]:
    """The caption beside an image, as the other fields of its Item."""
    caption, reason = files.read(name)
    return caption, {}, reason


def make_pairs(
    root: Path, folder_name: str, items: Iterator[Item], source: FolderSource, seed: int
) -> Iterator[Pair]:
    """The pairs of the items, in order, with the bytes of their images."""
    used: dict[str, str] = {}  # image -> content of its first caption
    count = 0
    for item in items:
        for raw in choose_captions(item.caption, source.captions_per_image, seed, item.name):
            if source.limit is not None and count >= source.limit:
                return
            yield make_pair(root, folder_name, item, raw, source, used, count)
            count += 1


def make_pair(
    root: Path,
    folder_name: str,
    item: Item,
    raw: object,
    source: FolderSource,
    used: dict[str, str],
    count: int,
) -> Pair:
    """The pair of one item and one of its captions."""
    name = item.name
    data, reason = b"", item.reason
    if reason is None:
        data, reason = read_image(root, name, source.max_bytes, follow_links=source.follow_links)
    if source.captions == EMBEDDED:
        raw = read_prompt(data)
    text = raw if isinstance(raw, str) else None
    caption, notes = clean_caption(text)
    if reason is None and not caption:
        reason = caption_reason(raw, caption)
    elif reason is None and name in used and source.captions_per_image == "first":
        reason = "extra-caption"
    content = used.get(name) or content_id(caption)
    if caption and name:
        used.setdefault(name, content)  # all captions of an image are one content
    sha256 = hashlib.sha256(data).hexdigest() if data else None
    shown = (
        PurePosixPath(name).name if name.startswith("/") else name
    )  # no absolute path in a corpus
    origin = Origin(
        kind="raw",
        source=f"folder:{plain_source((PurePosixPath(folder_name) / shown).as_posix())}",
        content=content,
        source_sha256=sha256,
        details={**clean_details(item.columns), **notes},
    )
    key = digest("folder", name, text, sha256)
    if item.reason in ("malformed-row", "not-utf8"):
        key = digest("row", folder_name, count, item.reason)
    pair = Pair(key, caption, data, origin)
    return pair if reason is None else pair.drop(STAGE, reason)


def choose_lists(folder: Path, source: FolderSource) -> list[Path]:
    """The caption lists of a folder: the one that is named, else those with a usual name, at any depth.

    Raises SourceError for two of them in one folder.
    """
    if source.captions is not None:
        named = folder / source.captions
        if not named.exists() and not has_magic(source.captions):
            list_names = sorted(path.name for path in folder.iterdir() if list_kind(path) in KINDS)
            raise SourceError(
                f"{named}: expected the list of captions that the source names, found nothing",
                hint=f"captions is looked for inside {folder};"
                + (
                    f" lists there: {', '.join(list_names[:5])}"
                    if list_names
                    else " it contains no list"
                ),
            )
        return [find_lists(named)[0]]
    lists: dict[Path, Path] = {}
    for name in DEFAULT_LISTS:
        for path in sorted(folder.rglob(name)):
            relative = path.relative_to(folder).parts
            if any(part.startswith(".") or part in JUNK_FOLDERS for part in relative):
                continue
            if path.parent in lists:
                raise SourceError(
                    f"{path.parent}: expected one list of captions, found {lists[path.parent].name}"
                    f" and {path.name}",
                    hint=f"choose one in the recipe, e.g. captions: {path.name}, or remove one",
                )
            lists[path.parent] = path
    return sorted(lists.values())


def read_items(source: FolderSource, lists: list[Path], images: list[FolderFile]) -> Iterator[Item]:
    """An item for every row of the lists, then for every image that they do not name."""
    index = ImageIndex(image.name for image in images)
    named: set[str] = set()
    captions = column_names(source.caption_column, CAPTION_COLUMNS)
    fall_back = isinstance(source.caption_column, tuple)
    for path in lists:
        base = path.parent.relative_to(source.path).as_posix()
        base = "" if base == "." else f"{base}/"
        rows = read_list(
            path, IMAGE_COLUMNS, captions, "image", list_format(source), fall_back=fall_back
        )
        for row in rows:
            if row.reason is not None:
                yield Item("", None, {"list_line": row.line}, row.reason)
                continue
            name, reason = index.find(row.target if isinstance(row.target, str) else "", base)
            columns = row.columns
            if reason == "missing-file" and name and (near := index.nearest(name)):
                columns = {**columns, "nearest_file": near}
            named.add(name)
            yield Item(name, row.caption, columns, reason)
    for image in images:
        if image.name not in named:
            yield Item(image.name, None)


def read_image(
    root: Path, name: str, max_bytes: int, *, follow_links: bool
) -> tuple[bytes, str | None]:
    """The bytes of an image, or why there are none; nothing outside `root` is read unless links are followed.

    A name with `..` or an absolute one never leaves `root`, whatever is followed.
    """
    try:
        if name.startswith("/") or ".." in PurePosixPath(name).parts:
            return b"", "outside-folder"
        path = (root / name).resolve()
        if not follow_links and not path.is_relative_to(root):
            return b"", "outside-folder"
        if not name or not path.is_file():
            return b"", "missing-file"
        if path.stat().st_size > max_bytes:
            return b"", "too-large"
        return path.read_bytes(), None
    except (OSError, ValueError, RuntimeError):  # a name with NUL, a loop of links, no permission
        return b"", "unreadable-file"


def warn_repeats(folder: Path, images: list[FolderFile]) -> None:
    """Warn that the repeat count in folder names such as `10_name` is not applied."""
    names = {image.name.split("/")[0] for image in images if "/" in image.name}
    repeated = sorted(name for name in names if REPEATS.fullmatch(name))
    if repeated:
        say(
            f"{folder.name}: folders such as {repeated[0]!r} are read once; repeats in a folder's name"
            " are not applied"
        )


def warn_links(folder: Path, images: list[FolderFile], source: FolderSource) -> None:
    """Warn how many images are dropped because they are links out of the folder."""
    count = sum(image.is_linked for image in images)
    if count and not source.follow_links:
        say(
            f"{folder.name}: {count} images are links to files outside the folder and are dropped"
            " (outside-folder); set follow_links: true to read them"
        )
