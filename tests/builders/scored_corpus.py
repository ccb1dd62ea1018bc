"""The score step over the folders of pictures_folder, with the scorers that a test asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builders.pictures_folder import settings, write_recipe
from stylear.curate import run as runner
from stylear.curate.recipe import Recipe, load_recipe


def recipe_of(home: Path, scores: list[dict[str, Any]]) -> Recipe:
    return load_recipe(write_recipe(home, settings(score=scores), "scored.yaml"))


def scoring(
    home: Path,
    corpus: Path,
    scores: list[dict[str, Any]],
    *,
    before: tuple[str, ...] = (),
    workers: int = 1,
    redo: str | None = None,
) -> int:
    """Run the score step; how many tables it made."""
    recipe = recipe_of(home, scores)
    results = runner.run_stages([*before, "score"], recipe, corpus, workers=workers, redo=redo)
    return results[-1].new
