"""The base folder of a recipe's relative paths: its own folder, or the original's for a corpus's copy.

A corpus stores its recipe with relative paths, so that the same inputs give the same bytes anywhere. A note
beside it records their base folder twice: relative to the corpus, for a corpus that is moved together with
its inputs, and as an absolute path, for one that is moved alone.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import Path

from stylear.curate.corpus.layout import RECIPE, RECIPE_FOLDER
from stylear.curate.corpus.object_store import in_store
from stylear.curate.corpus.storage import write_text
from stylear.curate.recipe.recipe import Recipe


def list_possible_bases(path: Path) -> list[Path]:
    """The possible base folders of the recipe at `path`, most likely first."""
    own = Path.cwd() if in_store(path) else path.resolve().parent
    note = path.parent / RECIPE_FOLDER
    if path.name != RECIPE or not note.is_file():
        return [own]
    try:
        saved = json.loads(note.read_text("utf-8"))
        bases = [(own / saved["relative"]).resolve()] if saved["relative"] is not None else []
        return [*bases, Path(saved["absolute"])]
    except (OSError, ValueError, TypeError, KeyError):  # a damaged note
        return [own]


def write_recipe_folder(corpus: Path, recipe: Recipe) -> None:
    """Write the note with the base folder beside a corpus's recipe."""
    if recipe.base is None:
        return
    relative = None if in_store(corpus) else os.path.relpath(recipe.base, corpus.resolve())
    text = json.dumps({"relative": relative, "absolute": str(recipe.base)}, ensure_ascii=False)
    note = corpus / RECIPE_FOLDER
    if not note.is_file() or note.read_text("utf-8") != f"{text}\n":
        write_text(note, f"{text}\n")


def find_missing_paths(recipe: Recipe) -> list[Path]:
    """The files and folders that a recipe names but that do not exist."""
    rule = MissingPaths()
    recipe.map_paths(rule)
    return rule.missing


@dataclass(frozen=True, slots=True)
class MissingPaths:
    """A path rule that changes nothing and collects the paths that do not exist."""

    missing: list[Path] = field(default_factory=list)

    def map_path(self, path: Path | str) -> Path:
        path = folder = Path(path)
        while has_magic(str(folder)) or "{" in folder.name:  # for a pattern, its folder must exist
            folder = folder.parent
        if not folder.exists():
            self.missing.append(path)
        return path

    def map_name(self, name: str) -> str:
        if Path(name).is_absolute():
            self.map_path(name)
        return name
