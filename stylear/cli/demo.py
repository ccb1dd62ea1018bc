"""`stylear demo`: the whole workflow offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FOLDER", help="Output folder; an interrupted demo continues from it."
        ),
    ] = Path("demo-output"),
) -> None:
    """Run the whole workflow offline, from corpus to images.

    It builds and audits a small corpus, trains on it, draws images, and ends with a page to open.

    Example: stylear demo --out demo-output
    """
    from stylear.demo.workflow import run_demo

    run_demo(out)
