"""Style references: images that show a style. Pairs are scored against them; they are never trained on."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

import stylear
from stylear.curate.corpus.split import assign_split
from stylear.errors import CorpusError, RecipeError, SourceError
from stylear.sampling.scenes import read_notes, read_scene

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

MINI = Path(stylear.__file__).parent / "mini" / "references"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_PIXELS = 64_000_000  # more than a good camera; above is a decompression bomb or a mistake


@dataclass(frozen=True, slots=True)
class StyleReference:
    """One image that shows a style; `id` is its file's stem."""

    id: str
    image: bytes  # the encoded file
    sha256: str
    path: Path
    held_out: bool  # belongs to the validation split
    scene: str | None = None  # what it shows, if a caption says so

    @property
    def style(self) -> str:
        """The style's name: several references `<style>--<n>` may show one style."""
        return self.id.split("--")[0]


def load_references(recipe: Recipe) -> list[StyleReference]:
    """Load all references of a recipe, sorted by id.

    Raises RecipeError for an unknown mini style or an id used twice, SourceError if a folder is missing
    or empty, a file is not an image, or captions cannot be read.
    """
    paths = reference_files(recipe)
    fraction = recipe.mix.val_fraction
    notes = {folder: read_notes(folder) for folder in {path.parent for path in paths.values()}}
    return [
        read_reference(
            path,
            held_out=assign_split(key, recipe.seed, fraction) == "val",
            scene=read_scene(path, notes[path.parent]),
        )
        for key, path in sorted(paths.items())
    ]


def reference_files(recipe: Recipe) -> dict[str, Path]:
    """The image files of all references by their ids; nothing is read.

    Raises RecipeError for an unknown mini style or an id used twice, SourceError for a folder that is
    missing or empty.
    """
    paths: dict[str, Path] = {}
    for number, source in enumerate(recipe.references):
        for path in reference_paths(number, source):
            if path.stem in paths and paths[path.stem] != path:
                raise RecipeError(
                    f"references: two files have the id {path.stem!r}: {paths[path.stem]}, {path}",
                    hint="rename one of them; the id is the file name without its extension",
                )
            paths[path.stem] = path
    return paths


def reference_paths(number: int, source: Any) -> list[Path]:
    """The image files of one source of references; `number` is its place in the recipe.

    Raises RecipeError for an unknown mini style, SourceError for a folder that is missing or empty.
    """
    if source.type == "mini":
        return find_mini_references(source.names, f"references.{number}.names")
    return list_reference_files(Path(source.path), f"references.{number}.path")


def missing_reference_error(where: str, name: str | None) -> CorpusError:
    """The error for something in a corpus whose style reference the recipe no longer has."""
    return CorpusError(
        f"{where}: its style reference {name!r} is not in the recipe",
        hint="restore the reference, or run `stylear curate run RECIPE --out CORPUS --redo synthesize`",
    )


def find_mini_references(names: list[str] | None, where: str = "names") -> list[Path]:
    """The files of the embedded styles called `names`; None means every style not held out."""
    files = sorted(MINI.glob("*.png"))
    if names is None:
        from stylear.mini.styles import HELD_OUT_FAMILIES

        held_out = {family.replace("_", "-") for family in HELD_OUT_FAMILIES}
        return [path for path in files if path.stem.split("--")[0] not in held_out]
    by_style: dict[str, list[Path]] = {}
    for path in files:
        by_style.setdefault(path.stem.split("--")[0], []).append(path)
        by_style[path.stem] = [path]
    styles = sorted({path.stem.split("--")[0] for path in files})
    for name in names:
        if name not in by_style:
            raise RecipeError(
                f"{where}: no embedded style is called {name!r}",
                hint=f"embedded styles: {', '.join(styles)}",
            )
    return [path for name in names for path in by_style[name]]


def list_reference_files(folder: Path, where: str = "path") -> list[Path]:
    """The image files of a folder, sorted by name, without hidden files and other types."""
    if not folder.is_dir():
        raise SourceError(f"{where}: no folder at {folder}", hint="give a folder of style images")
    files = sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
    if not files:
        raise SourceError(
            f"{where}: {folder} holds no images ({', '.join(SUFFIXES)})",
            hint="add at least one style image",
        )
    return files


def read_reference(
    path: Path, *, held_out: bool = False, scene: str | None = None
) -> StyleReference:
    """Read one reference and decode it. Raises SourceError naming the file."""
    data = path.read_bytes()
    try:
        with warnings.catch_warnings():  # the size is checked below
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise SourceError(
                        f"style reference {path} is {image.width}x{image.height};"
                        f" at most {MAX_PIXELS:,} pixels are read",
                        hint="make the image smaller",
                    )
                image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SourceError(
            f"style reference {path} is not a readable image: {error}",
            hint="replace or remove the file",
        ) from error
    sha256 = hashlib.sha256(data).hexdigest()
    return StyleReference(path.stem, data, sha256, path, held_out, scene)
