"""Scenes: descriptions of the content of style references.

They come from `references.json`, a list of objects for the whole folder, or from `NAME.txt` beside
`NAME.png`. The scene is the content that must not leak from a reference into pictures of its style.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylear.errors import SourceError

NOTES_FILE = "references.json"
Notes = Mapping[str, Mapping[str, Any]]  # by file name


def read_notes(folder: Path) -> Notes:
    """The entries of a folder's references.json by file name; empty if there is none.

    Raises SourceError naming the first invalid entry.
    """
    path = folder / NOTES_FILE
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise SourceError(f"{path}: expected JSON, found: {error}") from error
    if not isinstance(entries, list):
        raise SourceError(f"{path}: expected a list of objects, found {type(entries).__name__}")
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
            raise SourceError(f"{path}: entry {i}: expected an object with `file`, found {entry!r}")
        for key, kind in (("style", str), ("scene", str), ("held_out", bool)):
            if not isinstance(entry.get(key, kind()), kind):
                raise SourceError(
                    f"{path}: entry {i}: {key}: expected {kind.__name__}, found {entry[key]!r}"
                )
    return {entry["file"]: entry for entry in entries}


def read_scene(picture: Path, notes: Notes) -> str | None:
    """The scene of a picture: `scene` of its note, else the text of the .txt beside it, else None.

    Raises SourceError if the .txt cannot be read as text.
    """
    scene: str | None = notes.get(picture.name, {}).get("scene")
    if scene:
        return scene
    path = picture.with_suffix(".txt")
    try:
        return " ".join(path.read_text("utf-8").split()) or None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{path}: expected the caption of {picture.name}, found: {error}"
        ) from error
