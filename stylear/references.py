"""References: the style pictures and the prompts that generating and evaluating start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from stylear.encoders.clip import to_rgb
from stylear.errors import SourceError
from stylear.weights import read_json

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
NOTES_FILE = "references.json"


@dataclass(frozen=True, slots=True)
class Reference:
    """A style reference: `style` is its name up to `--`, `caption` says what it shows."""

    id: str
    picture: Image.Image
    style: str
    path: Path | None = None
    caption: str | None = None
    held_out: bool = False  # no model has seen this style

    @property
    def label(self) -> str:
        return f"{self.id} (held out)" if self.held_out else self.id


def load_styles(folder: str | Path) -> list[Reference]:
    """The style references of a folder or file; `<style>--<n>.png` are several of one style.

    A `references.json` beside them may tell more, all of it optional:
    {"<file stem>": {"caption": "what it shows", "held_out": true}}.
    Raises SourceError for a folder that is missing or empty and for a file that is no image.
    """
    folder = Path(folder)
    paths = [folder] if folder.is_file() else _pictures(folder)
    notes = paths[0].parent / NOTES_FILE
    told = read_json(notes) if notes.is_file() else {}
    return [_reference(path, told.get(path.stem, {}), notes) for path in paths]


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise SourceError(
            f"{folder}: expected a folder of style references, found nothing",
            hint="give a folder that holds pictures of styles",
        )
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise SourceError(
            f"{folder}: expected pictures ({', '.join(SUFFIXES)}), found none",
            hint="put at least one style reference there",
        )
    return paths


def _reference(path: Path, told: Any, notes: Path) -> Reference:
    try:
        picture = to_rgb(path.read_bytes())
    except SourceError as error:
        raise SourceError(f"{path}: {error.message}", hint="replace or remove the file") from error
    caption = told.get("caption") if isinstance(told, dict) else told
    if not isinstance(told, dict) or not isinstance(caption, str | None):
        raise SourceError(f'{notes}: {path.stem}: expected {{"caption": text}}, found {told!r}')
    held_out = bool(told.get("held_out"))
    return Reference(path.stem, picture, path.stem.split("--")[0], path, caption, held_out)


def load_prompts(path: str | Path) -> list[str]:
    """One prompt a line; empty lines and lines that start with # are left out."""
    path = Path(path)
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: expected a text file of prompts, found: {error}") from error
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise SourceError(f"{path}: expected one prompt a line, found none")
    return prompts
