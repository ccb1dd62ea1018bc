"""`stylear demo`: the whole workflow offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[
        Path, typer.Option("--out", help="Folder of everything the demo makes; resumable.")
    ] = Path("demo-output"),
) -> None:
    """The whole story offline: corpus, audit, training, pictures; ends with a page to open.

    Example: stylear demo --out demo-output
    """
    from stylear.demo import story as story

    story.run(out)
