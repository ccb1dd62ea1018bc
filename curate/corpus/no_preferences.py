"""Why a corpus has no preference pairs, and which setting of its recipe to change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stylear.curate.corpus.layout import RECIPE

RANKING = ("clip-text", "csd", "texture", "clip-image")  # scorers by which candidates are ranked
AGAIN = "`stylear curate run RECIPE --out CORPUS"


def explain_no_preferences(recipe: Mapping[str, Any]) -> tuple[str, str]:
    """The reason why a resolved recipe gave no preference pair, and what to do."""
    if not recipe.get("references"):
        return (
            "the recipe has no references, so there are no stylized candidates to compare",
            f"add references to the recipe, then {AGAIN}`",
        )
    if recipe.get("synthesize", {}).get("candidates") == 1:
        return (
            "synthesize.candidates is 1, so no image has another one to be compared with",
            f"set synthesize.candidates to 2 or more, then {AGAIN} --redo synthesize`",
        )
    if recipe.get("pairs", {}).get("human") == "only":
        return (
            "pairs.human is only, and no reviewer prefers a candidate of a group in train",
            "ask people with `stylear curate review CORPUS --ask prefer`, or set pairs.human to"
            f" first, then {AGAIN}`",
        )
    named = [recipe.get("filter", {}).get(name) for name in ("text_score", "style_score")]
    if not any(named) and not any(spec.get("type") in RANKING for spec in recipe.get("score", ())):
        return (
            f"no scorer ranks the candidates ({', '.join(RANKING)})",
            f"add one to score in the recipe, then {AGAIN}`",
        )
    margin = recipe.get("pairs", {}).get("margin")
    return (
        f"no best candidate in train leads the worst of its group by pairs.margin {margin} or more",
        f"lower pairs.margin or the thresholds of the filter, or add contents, then {AGAIN}`",
    )


def explain_no_preferences_in(corpus: Path) -> tuple[str, str]:
    """The reason why a corpus has no preference pair, by its resolved recipe, and what to do."""
    try:
        recipe = yaml.safe_load((corpus / RECIPE).read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        recipe = None
    if not isinstance(recipe, Mapping) or not (corpus / "preferences").is_dir():
        return (
            "the stage pairs was not run on it",
            f"run {AGAIN}`, or `stylear curate pairs --out CORPUS` when mix is finished",
        )
    return explain_no_preferences(recipe)
