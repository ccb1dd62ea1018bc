"""A corpus without preference pairs says why, and which setting to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders.pictures_folder import make_folders, make_recipe, settings

from stylear.curate import run as runner
from stylear.curate.corpus.no_preferences import explain_no_preferences, explain_no_preferences_in

CANDIDATES = "synthesize.candidates is 1, so no image has another one to be compared with"


@pytest.mark.parametrize(
    ("changes", "reason", "remedy"),
    [
        ({"references": []}, "the recipe has no references", "add references"),
        ({"synthesize": {"candidates": 1}}, CANDIDATES, "--redo synthesize"),
        ({"score": []}, "no scorer ranks the candidates", "add one to score"),
        ({}, "pairs.margin 0.02 or more", "lower pairs.margin"),
    ],
)
def test_each_reason_has_its_remedy(changes: dict[str, Any], reason: str, remedy: str) -> None:
    recipe = {
        "references": [{"type": "mini"}],
        "synthesize": {"candidates": 2},
        "score": [{"type": "texture"}],
        "filter": {"text_score": None, "style_score": None},
        "pairs": {"margin": 0.02},
        **changes,
    }
    explanation = explain_no_preferences(recipe)
    assert reason in explanation[0]
    assert remedy in explanation[1]


def test_the_pairs_stage_ends_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folders(tmp_path, pictures=12)
    spec = {"backend": "statistics", "candidates": 1}
    recipe = make_recipe(tmp_path, settings(synthesize=spec))
    done = runner.run(recipe, tmp_path / "corpus", workers=1)
    assert (done.results[-1].stage, done.results[-1].kept) == ("pairs", 0)
    assert f"warning: 0 preference pairs: {CANDIDATES}" in capsys.readouterr().err
    assert explain_no_preferences_in(tmp_path / "corpus")[0] == CANDIDATES


def test_a_corpus_before_the_stage_pairs_differs_from_one_without_pairs(tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=12)
    runner.run_stages(["fetch"], make_recipe(tmp_path), tmp_path / "corpus", workers=1)
    assert explain_no_preferences_in(tmp_path / "corpus")[0] == "the stage pairs was not run on it"
