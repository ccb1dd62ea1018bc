"""Finds the images of a folder and the caption files beside them."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stylear.curate.corpus.layout import LEDGER, RECIPE
from stylear.curate.fetch.captions import caption_in
from stylear.curate.fetch.lists.text import decode_bytes
from stylear.curate.fetch.sniff import NEEDED, sniff_format
from stylear.errors import SourceEmpty, SourceError

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif",
    ".heic", ".heif", ".jp2", ".j2k", ".jxl",
)  # fmt: skip
OTHER_FILES = frozenset({
    ".txt", ".caption", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".gz", ".tar", ".zip", ".yaml",
    ".yml", ".md", ".html", ".xml", ".npz", ".npy", ".pt", ".safetensors", ".db", ".ini", ".log", ".py",
})  # fmt: skip
JUNK_FOLDERS = frozenset({"__MACOSX", "@eaDir"})
MAX_TEXT_BYTES = 1_000_000  # of a caption file beside an image
UNREADABLE = "caption-not-utf8"


@dataclass(frozen=True, slots=True)
class FolderFile:
    """An image below a folder, by its relative POSIX path."""

    name: str
    is_linked: bool  # a symbolic link to a file outside the folder


def find_images(folder: Path) -> list[FolderFile]:
    """The images below `folder`, by name. Raises SourceEmpty if there is none.

    An image is recognised by its extension or, if that is unknown, by its first bytes. Hidden files and
    folders, and what macOS adds to archives, are skipped. Links to files outside the folder are marked.
    """
    if not folder.is_dir():
        raise SourceError(
            f"{folder}: expected a folder of images, found nothing",
            hint="relative paths start at the recipe's folder",
        )
    images = sorted(walk_images(folder), key=lambda file: file.name)
    if not images:
        raise SourceEmpty(
            f"{folder}: expected images ({', '.join(SUFFIXES)}), found none",
            hint="put images there, or name the folder that holds them",
        )
    return images


def walk_images(folder: Path) -> Iterator[FolderFile]:
    """The images below `folder`, unsorted."""
    root = folder.resolve()
    for path in walk_files(folder):
        if is_picture(path):
            linked = not path.resolve().is_relative_to(root)
            yield FolderFile(path.relative_to(folder).as_posix(), linked)


def walk_files(folder: Path) -> Iterator[Path]:
    """The files below `folder`, except hidden ones and those of a corpus that was written there.

    Each folder is visited once, whatever links lead to it.
    """
    entered: set[Path] = set()
    for directory, folders, files in os.walk(folder, followlinks=True):
        real = Path(directory).resolve()
        if real in entered or ((real / LEDGER).is_dir() and (real / RECIPE).is_file()):
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in JUNK_FOLDERS)
        yield from (Path(directory, name) for name in sorted(files) if not name.startswith("."))


def is_picture(path: Path) -> bool:
    """Whether a file is an image, by its ending or else by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return True
    if suffix in OTHER_FILES:
        return False
    try:
        with path.open("rb") as file:
            return sniff_format(file.read(NEEDED)) is not None
    except OSError:
        return False


class CaptionFiles:
    """Finds the caption file beside an image by several endings; names are compared in NFC."""

    def __init__(
        self, root: Path, endings: Sequence[str], encoding: str | None, *, follow_links: bool
    ) -> None:
        self.root, self.endings, self.encoding = root, endings, encoding
        self.follow_links = follow_links
        self._folders: dict[Path, dict[str, str]] = {}

    def read(self, name: str) -> tuple[object, str | None]:
        """The caption beside an image, a text or a list, and the reason if it cannot be read."""
        image = self.root / name
        names = self._names(image.parent)
        for stem in (image.stem, image.name):
            for ending in self.endings:
                file_name = names.get(unicodedata.normalize("NFC", f"{stem}{ending}"))
                if file_name is None or not self._is_inside(path := image.parent / file_name):
                    continue
                with path.open("rb") as file:
                    text = decode_bytes(file.read(MAX_TEXT_BYTES), self.encoding)
                if text is None:
                    return None, UNREADABLE
                return (parse_caption(text) if ending == ".json" else text), None
        return None, None

    def _is_inside(self, path: Path) -> bool:
        """Whether a file exists and may be read."""
        try:
            return path.is_file() and (
                self.follow_links or path.resolve().is_relative_to(self.root)
            )
        except (OSError, RuntimeError):
            return False

    def _names(self, folder: Path) -> dict[str, str]:
        """The files of a folder by their names in NFC."""
        if folder not in self._folders:
            names = (path.name for path in folder.iterdir())
            self._folders = {folder: {unicodedata.normalize("NFC", name): name for name in names}}
        return self._folders[folder]


def parse_caption(text: str) -> object:
    """The caption in the JSON beside an image; None if it has none."""
    try:
        return caption_in(json.loads(text))
    except (ValueError, RecursionError):
        return None
