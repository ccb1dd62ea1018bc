"""`stylear`: the root of the command line. Heavy imports happen inside commands."""

from __future__ import annotations

import typer

from stylear.console import run_app

app = typer.Typer(
    name="stylear",
    help="Build a style corpus you can defend; train a style-aligned autoregressive image model on it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def mount() -> typer.Typer:
    """The app with the `curate` and `train` groups mounted."""
    from curate.cli import app as curate_app
    from train.cli import app as train_app

    app.add_typer(curate_app, name="curate")
    app.add_typer(train_app, name="train")
    return app


def main() -> None:
    """Entry point of the console script."""
    run_app(mount())
