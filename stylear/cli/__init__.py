"""`stylear`: the root command, with one file for each command. Heavy imports happen inside commands."""

from __future__ import annotations

from typing import Annotated

import typer

from stylear import __version__
from stylear.cli import demo, doctor, evaluate, generate, models
from stylear.console import run_app

app = typer.Typer(
    name="stylear",
    help="Build a style corpus you can defend; train a style-aligned image model on it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(models.app, name="models")
for command in (generate.generate, evaluate.evaluate, demo.demo, doctor.doctor):
    app.command()(command)


def print_version(is_requested: bool) -> None:
    """Print the version and exit if --version was given."""
    if is_requested:
        print(f"stylear {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Build a style corpus you can defend; train a style-aligned image model on it."""


def mount() -> typer.Typer:
    """The app, with the groups `curate` and `train`."""
    from stylear.curate.cli import app as curate_app
    from stylear.train.cli import app as train_app

    app.add_typer(curate_app, name="curate")
    app.add_typer(train_app, name="train")
    return app


def main() -> None:
    """The entry point of the console script."""
    run_app(mount())
