"""Which scorers rank a model's own pictures: those that are asked for, else those of the corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stylear.train.rewards import choose_scorers
from stylear.train.settings import ScoringSettings

TEXT = {"name": "text", "type": "clip-text", "model": "vit-h-14"}
STYLE = {"name": "style", "type": "clip-image", "model": "vit-h-14"}
MARKS = {"name": "marks", "type": "texture"}
CSD = {"name": "csd", "type": "csd", "model": "../weights/csd.pth"}


def chosen(corpus: Path, recipe: dict[str, Any] | None, **settings: Any) -> tuple[Any, Any, Any]:
    corpus.mkdir()
    if recipe is not None:
        (corpus / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    scorers = choose_scorers(ScoringSettings.model_validate(settings), [corpus])
    return scorers.judge, scorers.style_score, scorers.csd


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (None, ("mini-clip", "clip-image", None)),
        ({"score": [MARKS]}, ("mini-clip", "texture", None)),
        ({"score": [TEXT, STYLE]}, ("vit-h-14", "clip-image", None)),
        (
            {"score": [STYLE, MARKS, TEXT]},
            ("vit-h-14", "texture", None),
        ),  # as candidates are ranked
        (
            {"score": [TEXT, STYLE, MARKS], "filter": {"style_score": "style"}},
            ("vit-h-14", "clip-image", None),
        ),
        (
            {
                "score": [{**TEXT, "name": "a", "model": "other"}, TEXT],
                "filter": {"text_score": "text"},
            },
            ("vit-h-14", "clip-image", None),
        ),
        ({"score": [{"name": "cas", "type": "cas"}]}, ("mini-clip", "clip-image", None)),
    ],
)
def test_without_settings_the_scores_are_those_that_rank_candidates_of_the_corpus(
    tmp_path: Path, recipe: dict[str, Any] | None, expected: tuple[str, str, None]
) -> None:
    assert chosen(tmp_path / "corpus", recipe) == expected


def test_a_path_of_the_recipe_is_relative_to_the_corpus(tmp_path: Path) -> None:
    weights = tmp_path / "weights" / "csd.pth"
    weights.parent.mkdir()
    weights.touch()
    corpus = tmp_path / "corpus"
    judge, style_score, csd = chosen(corpus, {"score": [MARKS, CSD]})
    assert (judge, style_score) == ("mini-clip", "csd")
    assert csd.resolve() == weights


def test_settings_go_before_the_scores_of_the_corpus(tmp_path: Path) -> None:
    recipe = {"score": [TEXT, CSD]}
    settings = {"judge": "mini-clip", "style_score": "texture"}
    assert chosen(tmp_path / "corpus", recipe, **settings) == ("mini-clip", "texture", None)
