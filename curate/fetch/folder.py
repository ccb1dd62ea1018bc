"""Folders: images on disk, their captions in a list or beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from stylear.curate.corpus.captions import clean_caption, clean_details, plain_source
from stylear.curate.fetch.ingest import STAGE
from stylear.curate.fetch.lists import CAPTION_COLUMNS, IMAGE_COLUMNS, list_paths, read_list
from stylear.errors import SourceError
from stylear.pair import Origin, Pair, content_id, digest

if TYPE_CHECKING:
    from stylear.curate.recipe import FolderSource

Listed = tuple[str, object, dict[str, object]]  # image, caption, other columns
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
DEFAULT_LISTS = ("captions.csv", "metadata.csv", "metadata.jsonl")  # the latter: Hugging Face
MAX_TEXT_BYTES = 1_000_000  # of a .txt or .json beside an image


def folder_pairs(source: FolderSource) -> Iterator[Pair]:
    """A pair for every row of the caption list, then for every image that it does not name.

    Without a list (`captions` unset and no captions.csv, metadata.csv or metadata.jsonl): a pair
    for every image, by name, captioned by the .txt or .json ("caption") beside it. Dropped:
    no-caption, missing-file, outside-folder, unreadable-file, too-large, extra-caption (a further
    caption of the same image, unless `captions_per_image: all`).
    Raises SourceError for a folder that is missing or empty and for a list that cannot be read.
    """
    folder = source.path
    images = image_names(folder)
    rows: Iterator[Listed]
    named = [source.captions] if source.captions is not None else DEFAULT_LISTS
    listing = next((folder / name for name in named if (folder / name).is_file()), None)
    if listing is not None or source.captions is not None:
        rows = _listed(listing or folder / str(source.captions), images)
    else:
        root = folder.resolve()
        rows = ((name, beside(root / name, root), {}) for name in images)
    return _pairs(folder, rows, source)


def _pairs(folder: Path, rows: Iterator[Listed], source: FolderSource) -> Iterator[Pair]:
    root = folder.resolve()
    used: dict[str, str] = {}  # image -> content of its first caption
    for count, (name, raw, columns) in enumerate(rows):
        if source.limit is not None and count >= source.limit:
            return
        caption, notes = clean_caption(raw)
        data, reason = _read(root, name, source.max_bytes)
        if reason is None and not caption:
            reason = "no-caption"
        elif reason is None and name in used and source.captions_per_image == "first":
            reason = "extra-caption"
        content = used.get(name) or content_id(caption)
        if caption:
            used.setdefault(name, content)  # all captions of an image are one content
        sha256 = hashlib.sha256(data).hexdigest() if data else None
        origin = Origin(
            kind="raw",
            source=f"folder:{plain_source(f'{folder.name}/{name}')}",
            content=content,
            source_sha256=sha256,
            details={**clean_details(columns), **notes},
        )
        text = raw if isinstance(raw, str) else None
        pair = Pair(digest("folder", name, text, sha256), caption, data, origin)
        yield pair if reason is None else pair.drop(STAGE, reason)


def image_names(folder: Path) -> list[str]:
    """The images below `folder`, sorted. Raises SourceError when there is none."""
    if not folder.is_dir():
        raise SourceError(
            f"{folder}: expected a folder of images, found nothing",
            hint="relative paths start at the recipe's folder",
        )
    images = sorted(_images(folder))
    if not images:
        raise SourceError(
            f"{folder}: expected images ({', '.join(SUFFIXES)}), found none",
            hint="put images there, or name the folder that holds them",
        )
    return images


def _images(folder: Path) -> Iterator[str]:
    """Image files below `folder`, as relative POSIX paths; hidden files and folders are left out."""
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.suffix.lower() in SUFFIXES and not any(p.startswith(".") for p in relative.parts):
            yield relative.as_posix()


def _listed(listing: Path, images: list[str]) -> Iterator[Listed]:
    """(image, caption, other columns) for every row of the list, then for images it does not name."""
    present = set(images)
    by_name: dict[str, list[str]] = {}
    for image in images:
        by_name.setdefault(image.rpartition("/")[2], []).append(image)
    named: set[str] = set()
    rows = read_list(list_paths(listing)[0], IMAGE_COLUMNS, CAPTION_COLUMNS, "image")
    for row in rows:
        name = row.place if isinstance(row.place, str) else ""
        name = PurePosixPath(name).as_posix() if name else ""  # ./a.png is a.png
        if name not in present and len(by_name.get(name, [])) == 1:
            name = by_name[name][0]  # lists often name files of a folder below
        named.add(name)
        yield name, row.caption, row.columns
    for image in images:
        if image not in named:
            yield image, None, {}


def _read(root: Path, name: str, max_bytes: int) -> tuple[bytes, str | None]:
    """The bytes of an image, or why there are none; nothing outside `root` is read."""
    try:
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            return b"", "outside-folder"
        if not name or not path.is_file():
            return b"", "missing-file"
        if path.stat().st_size > max_bytes:
            return b"", "too-large"
        return path.read_bytes(), None
    except (OSError, ValueError, RuntimeError):  # a name with NUL, a loop of links, no permission
        return b"", "unreadable-file"


def beside(image: Path, root: Path) -> str | None:
    """The caption in the .txt or .json file beside an image; None when there is none inside `root`."""
    for path in (image.with_suffix(".txt"), image.with_suffix(".json")):
        if not path.is_file() or not path.resolve().is_relative_to(root):
            continue
        text = _start_of(path)
        if path.suffix == ".txt":
            return text
        try:
            return caption_in(json.loads(text))
        except (ValueError, RecursionError):
            return None
    return None


def caption_in(record: object) -> str | None:
    """The caption in a JSON object, under any of the usual names."""
    if isinstance(record, dict):
        for name in CAPTION_COLUMNS:
            if isinstance(record.get(name), str):
                return str(record[name])
    return None


def _start_of(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_TEXT_BYTES).decode("utf-8-sig", "replace")
