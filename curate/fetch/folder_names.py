"""Matches the image names in a list with the images of a folder."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

DRIVE = re.compile(r"^[A-Za-z]:")


class ImageIndex:
    """Finds the image that a list names, tolerating other slashes, case, folders and endings."""

    def __init__(self, images: Iterable[str]) -> None:
        self.images = list(images)
        self._exact = set(self.images)
        self._tails: dict[
            str, set[str]
        ] = {}  # every tail of a path, folded, with and without ending
        for image in self.images:
            parts = fold(image).split("/")
            for start in range(len(parts)):
                tail = "/".join(parts[start:])
                self._tails.setdefault(tail, set()).add(image)
                stem = tail.rpartition(".")[0] if "." in parts[-1] else ""
                if stem:
                    self._tails.setdefault(stem, set()).add(image)

    def find(self, name: str, base: str = "") -> tuple[str, str | None]:
        """(image, None) if `name` means one image, else (name, reason).

        `base` is the folder of the list, to which its names are relative. Reasons: missing-file,
        ambiguous-file. A name that leaves the folder is returned unchanged; `read_image` refuses it.
        """
        plain = name.replace("\\", "/")
        if not plain.strip():
            return "", "missing-file"
        if ".." in PurePosixPath(plain).parts:
            return plain, None
        for candidate in (f"{base}{plain}", plain):
            normal = PurePosixPath(candidate).as_posix()
            if normal in self._exact:
                return normal, None
        tail = fold(DRIVE.sub("", plain)).strip("/")
        tail = PurePosixPath(tail).as_posix()
        parts = tail.split("/")
        for start in range(len(parts)):
            images = self._tails.get("/".join(parts[start:]), set())
            below = {image for image in images if image.startswith(base)} if base else images
            images = below or images
            if len(images) == 1:
                return next(iter(images)), None
            if images:
                return plain, "ambiguous-file"
        # `read_image` refuses an absolute path outside the folder
        return plain, None if plain.startswith("/") else "missing-file"

    def nearest(self, name: str) -> str | None:
        """The image whose name is most similar to a name that was not found."""
        last = fold(name.replace("\\", "/")).rpartition("/")[2]
        by_name = {fold(image).rpartition("/")[2]: image for image in self.images}
        close = difflib.get_close_matches(last, list(by_name)[:10_000], 1, cutoff=0.8)
        return by_name[close[0]] if close else None


def fold(name: str) -> str:
    """A name in NFC without case."""
    return unicodedata.normalize("NFC", name).casefold()
