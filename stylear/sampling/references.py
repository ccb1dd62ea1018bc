"""References and prompts: the inputs of `stylear generate` and `stylear evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from stylear.encoders.preprocess import to_rgb
from stylear.errors import SourceError, UsageError
from stylear.sampling.scenes import Notes, read_notes, read_scene
from stylear.sampling.styles import check_weight

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
NAMED = 4  # references in the name of a blend
EMBEDDED = Path(__file__).parents[1] / "mini" / "references"


@dataclass(frozen=True, slots=True)
class Reference:
    """A style reference: its name, picture, style, and the scene that it depicts."""

    id: str
    picture: Image.Image
    style: str
    path: Path | None = None
    scene: str | None = None
    held_out: bool = False  # whether no model was trained on this style
    parts: tuple[WeightedReference, ...] = ()  # of a blend, whose picture shows them side by side

    @property
    def label(self) -> str:
        return f"{self.id} (held out)" if self.held_out else self.id


@dataclass(frozen=True, slots=True)
class WeightedReference:
    """A reference of a blend; weights sum to 1."""

    reference: Reference
    weight: float


def load_styles(source: str | Path) -> list[Reference]:
    """The style references of a folder or file, or embedded ones by name.

    `source` is a picture, a folder of pictures, `mini` (every embedded style), or the name of one
    embedded style (`mosaic`) or reference (`mosaic--00`). Pictures named `<style>--<n>.png` share
    a style. A `references.json` beside them may describe them: a list of objects with `file` and optionally
    `style`, `scene` (the content) and `held_out`; the scene may also be in NAME.txt.
    Raises SourceError if the source is missing or empty, or if a file is not an image.
    """
    path = Path(source)
    if path.exists():
        paths = [path] if path.is_file() else _list_pictures(path)
    else:
        paths = _load_embedded(str(source))
        if not paths:
            names = sorted({file.stem.split("--")[0] for file in _load_embedded("mini")})
            raise SourceError(
                f"{source}: expected a picture, a folder of pictures or an embedded style, found none",
                hint=f"embedded styles: {', '.join(names)}",
            )
    notes = read_notes(paths[0].parent)
    return [_load_reference(path, notes) for path in paths]


def load_blend(sources: Sequence[str]) -> Reference:
    """One reference of several, each a source of `load_styles` with a weight after a colon: `a.png:0.7`.

    A source without a weight has the weight 1; that of a folder is shared by its pictures. Raises UsageError
    for a weight that is not a positive number, and SourceError as `load_styles` does.
    """
    weighted: list[tuple[Reference, float]] = []
    for source in sources:
        name, weight = split_weight(source)
        references = load_styles(name)
        weighted += [(reference, weight / len(references)) for reference in references]
    total = sum(weight for _, weight in weighted)
    parts = tuple(WeightedReference(reference, weight / total) for reference, weight in weighted)
    if len(parts) == 1:
        return parts[0].reference
    styles = {part.reference.style for part in parts}
    return Reference(
        id=name_blend([part.reference.id for part in parts]),
        picture=join_pictures([part.reference.picture for part in parts]),
        style=styles.pop() if len(styles) == 1 else "blend",
        held_out=all(part.reference.held_out for part in parts),
        parts=parts,
    )


def name_blend(ids: Sequence[str]) -> str:
    """The first ids of a blend and the number of the others."""
    more = [f"{len(ids) - NAMED} more"] if len(ids) > NAMED else []
    return " + ".join([*ids[:NAMED], *more])


def split_weight(source: str) -> tuple[str, float]:
    """The source and its weight, 1 if it has none. Raises UsageError for a weight that is not above 0."""
    name, colon, number = source.rpartition(":")
    if not colon or not name or Path(source).exists():
        return source, 1.0
    try:
        return name, check_weight(float(number))
    except UsageError as error:
        raise UsageError(f"--reference {source}: {error.message}") from error
    except ValueError:
        raise UsageError(
            f"--reference {source}: expected PICTURE:WEIGHT with a number, found {number!r}",
            hint="for example style.png:0.7",
        ) from None


def join_pictures(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures side by side, scaled to the height of the lowest one."""
    height = min(picture.height for picture in pictures)
    scaled = [
        picture.resize((max(1, round(picture.width * height / picture.height)), height))
        for picture in pictures
    ]
    joined = Image.new("RGB", (sum(picture.width for picture in scaled), height))
    left = 0
    for picture in scaled:
        joined.paste(picture, (left, 0))
        left += picture.width
    return joined


def _load_embedded(name: str) -> list[Path]:
    """The embedded references of a style or id; `mini` is all of them."""
    files = sorted(EMBEDDED.glob("*.png"))
    return [file for file in files if name in ("mini", file.stem, file.stem.split("--")[0])]


def _list_pictures(folder: Path) -> list[Path]:
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise SourceError(
            f"{folder}: expected pictures ({', '.join(SUFFIXES)}), found none",
            hint="add at least one style reference",
        )
    return paths


def _load_reference(path: Path, notes: Notes) -> Reference:
    note = notes.get(path.name, {})
    try:
        picture = to_rgb(path.read_bytes())
    except SourceError as error:
        raise SourceError(f"{path}: {error.message}", hint="replace or remove the file") from error
    return Reference(
        id=path.stem,
        picture=picture,
        style=note.get("style") or path.stem.split("--")[0],
        path=path,
        scene=read_scene(path, notes),
        held_out=note.get("held_out", False),
    )


def load_prompts(path: str | Path) -> list[str]:
    """The prompts of a text file, one per line; empty lines and lines starting with # are skipped.

    Raises SourceError if the file cannot be read or has no prompt.
    """
    path = Path(path)
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: expected a text file of prompts, found: {error}") from error
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise SourceError(f"{path}: expected one prompt per line, found none")
    return prompts
