"""References: the style pictures and the prompts that generating and evaluating start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from stylear.encoders.clip import to_rgb
from stylear.errors import SourceError
from stylear.sampling.scenes import Notes, read_notes, scene_of

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
EMBEDDED = Path(__file__).parents[1] / "mini" / "references"


@dataclass(frozen=True, slots=True)
class Reference:
    """A style reference: its name, the style it shows, and the scene it shows it on."""

    id: str
    picture: Image.Image
    style: str
    path: Path | None = None
    scene: str | None = None
    held_out: bool = False  # no model has seen this style

    @property
    def label(self) -> str:
        return f"{self.id} (held out)" if self.held_out else self.id


def load_styles(source: str | Path) -> list[Reference]:
    """The style references of a folder or file, or embedded ones by name.

    `source` is a picture, a folder of pictures, `mini` (every embedded style), or the name of one
    embedded style (`mosaic`) or reference (`mosaic--00`). Pictures `<style>--<n>.png` show one
    style; a `references.json` beside them may tell more, a list of objects with `file` and,
    as wanted, `style`, `scene` (what it shows) and `held_out`; a scene may also stand in NAME.txt.
    Raises SourceError for a source that is missing or empty and for a file that is no image.
    """
    path = Path(source)
    if path.exists():
        paths = [path] if path.is_file() else _pictures(path)
    else:
        paths = _embedded(str(source))
        if not paths:
            names = sorted({file.stem.split("--")[0] for file in _embedded("mini")})
            raise SourceError(
                f"{source}: expected a picture, a folder of them or an embedded style, found none",
                hint=f"embedded styles: {', '.join(names)}",
            )
    notes = read_notes(paths[0].parent)
    return [_reference(path, notes) for path in paths]


def _embedded(name: str) -> list[Path]:
    """The embedded references of a style or id; `mini` is all of them."""
    files = sorted(EMBEDDED.glob("*.png"))
    return [file for file in files if name in ("mini", file.stem, file.stem.split("--")[0])]


def _pictures(folder: Path) -> list[Path]:
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise SourceError(
            f"{folder}: expected pictures ({', '.join(SUFFIXES)}), found none",
            hint="put at least one style reference there",
        )
    return paths


def _reference(path: Path, notes: Notes) -> Reference:
    told = notes.get(path.name, {})
    try:
        picture = to_rgb(path.read_bytes())
    except SourceError as error:
        raise SourceError(f"{path}: {error.message}", hint="replace or remove the file") from error
    return Reference(
        id=path.stem,
        picture=picture,
        style=told.get("style") or path.stem.split("--")[0],
        path=path,
        scene=scene_of(path, notes),
        held_out=told.get("held_out", False),
    )


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
