"""`stylear curate init`: a commented recipe for one's own pictures, with paths that exist."""

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

HEAD = "# Paths start at this file's folder. Unknown keys are errors. Every key is spelled out."
NEW = "\0"  # stands for a new value until backslashes in it can do no harm


def init(
    out: Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe to write.")] = Path(
        "recipe.yaml"
    ),
    photos: Annotated[
        Path | None,
        typer.Option("--photos", help="A folder of ordinary pictures. Asked for if left out."),
    ] = None,
    styles: Annotated[
        Path | None,
        typer.Option("--styles", help="A folder of style images. Asked for if left out."),
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(
            "--captions", help="A list of image, caption in the photo folder, if there is one."
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="The corpus's name.")] = "house-style",
    size: Annotated[
        int, typer.Option("--size", min=16, help="Pixels a side of every image.")
    ] = 256,
    force: Annotated[bool, typer.Option("--force", help="Replace a recipe that is there.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a commented recipe for your photos and styles, ready for `stylear curate run`.

    Paths are written relative to the recipe, so the folder can move.

    Example: stylear curate init recipe.yaml --photos photos --styles styles
    """
    if out.exists() and not force:
        raise UsageError(f"{out}: already there", hint="choose another name, or give --force")
    photos = require_folder(photos or ask_for_folder("Folder of photos"), "--photos")
    styles = require_folder(styles or ask_for_folder("Folder of style images"), "--styles")
    if captions is not None and not (photos / captions.name).is_file():
        raise UsageError(
            f"--captions: expected {captions.name} in {photos}, found no such file",
            hint="put the list of image, caption beside the photos, or leave --captions out",
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
    """A folder that the user types. Raises UsageError where nobody can answer."""
    if not sys.stdin.isatty():
        raise UsageError(
            f"{question}: expected an option, found none",
            hint="give --photos FOLDER and --styles FOLDER",
        )
    return Path(typer.prompt(question))


def require_folder(folder: Path, option: str) -> Path:
    """`folder`, if it is one. Raises UsageError otherwise."""
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
    """The embedded house-style recipe with these values; comments stay."""
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
