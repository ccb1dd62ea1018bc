"""`stylear curate init`: a commented recipe for the user's own images, with paths that exist."""

from __future__ import annotations

import json as json_module
import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from stylear.console import JsonOption, emit_json
from stylear.embedded import find_manifest
from stylear.errors import UsageError

HEAD = "# Paths are relative to this file's folder. Unknown keys are errors. Every key is shown."
NEW = "\0"  # placeholder of a new value, because re.sub would expand its backslashes


def init(
    out: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="Path of the recipe to write.")
    ] = Path("recipe.yaml"),
    photos: Annotated[
        Path | None,
        typer.Option(
            "--photos", metavar="FOLDER", help="Folder of ordinary images; asked for if not given."
        ),
    ] = None,
    styles: Annotated[
        Path | None,
        typer.Option(
            "--styles", metavar="FOLDER", help="Folder of style images; asked for if not given."
        ),
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(
            "--captions",
            metavar="FILE",
            help="List of captions in the photo folder, with columns image and caption.",
        ),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Name of the corpus.")
    ] = "house-style",
    size: Annotated[
        int, typer.Option("--size", min=16, metavar="PIXELS", help="Side of every stored image.")
    ] = 256,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing recipe.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a commented recipe for your own images.

    It is ready for `stylear curate run`. Paths are relative to the recipe, so the folder can be moved.

    Example: stylear curate init recipe.yaml --photos photos --styles styles
    """
    if out.exists() and not force:
        raise UsageError(
            f"{out}: expected no file, found one", hint="choose another name, or give --force"
        )
    photos = require_folder(photos or ask_for_folder("Folder of photos"), "--photos")
    styles = require_folder(styles or ask_for_folder("Folder of style images"), "--styles")
    if captions is not None and not (photos / captions.name).is_file():
        raise UsageError(
            f"--captions: expected {captions.name} in {photos}, found no such file",
            hint="move the list (columns image, caption) into the photo folder, or omit --captions",
        )
    text = fill_template(out.parent, name, size, photos, styles, captions)
    check_recipe_text(text, out.parent)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    command = f"stylear curate run {out} --out my-corpus"
    if json:
        emit_json({"recipe": str(out), "next": command})
    else:
        print(f"recipe: {out}")
        print(f"next: {command} --dry-run, then the same without --dry-run")


def ask_for_folder(question: str) -> Path:
    """A folder that the user types. Raises UsageError without a terminal to ask on."""
    if not sys.stdin.isatty():
        raise UsageError(
            f"{question}: expected an option, found none",
            hint="give --photos FOLDER and --styles FOLDER",
        )
    return Path(typer.prompt(question))


def require_folder(folder: Path, option: str) -> Path:
    """`folder` if it exists. Raises UsageError otherwise."""
    folder = folder.expanduser()
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise UsageError(
            f"{option}: expected a folder, found {found}: {folder}",
            hint="give a folder that exists",
        )
    return folder


def fill_template(
    base: Path, name: str, size: int, photos: Path, styles: Path, captions: Path | None
) -> str:
    """The embedded house-style recipe with these values filled in; its comments stay."""
    text = find_manifest("house-style").read_text("utf-8")
    head = text.index("name:")
    captions_line = (
        f"captions: {json_module.dumps(captions.name)}" if captions else "# captions: captions.csv"
    )
    for old, new in (
        ("name: house-style", f"name: {json_module.dumps(name)}"),
        ("size: 256", f"size: {size}"),
        ("path: photos", f"path: {json_module.dumps(relative_to(base, photos))}"),
        ("captions: captions.csv", captions_line),
        ("path: styles", f"path: {json_module.dumps(relative_to(base, styles))}"),
    ):
        text, count = re.subn(
            rf"^(\s*(?:- )?){old}( +)", rf"\g<1>{NEW}  ", text, flags=re.MULTILINE
        )
        assert count == 1, f"house-style.yaml: expected {old!r} once"
        text = text.replace(NEW, new)
    return f"{HEAD}\n\n{text[head:]}"


def relative_to(base: Path, folder: Path) -> str:
    """The path from the recipe's folder to another one, with forward slashes."""
    return Path(os.path.relpath(folder.resolve(), base.resolve())).as_posix()


def check_recipe_text(text: str, base: Path) -> None:
    """Raise RecipeError when the recipe that would be written does not load."""
    import yaml

    from stylear.curate.recipe import check_recipe

    check_recipe(yaml.safe_load(text), base.resolve())
