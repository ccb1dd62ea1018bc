"""Score histograms: what they count, and a line where each threshold of the recipe cuts."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from builders.html_page import Page
from test_gallery import edit_verdicts

from stylear.curate import run as runner
from stylear.curate.corpus.parquet import read_table
from stylear.curate.recipe import Recipe, load_recipe
from stylear.curate.report import write_report
from stylear.curate.report.charts import Limit
from stylear.curate.report.cutoffs import find_cutoffs
from stylear.errors import CorpusError


def filtered(finished: Path, tmp_path: Path, **rules: Any) -> tuple[Path, Recipe]:
    """A copy of a finished corpus, filtered again by other rules."""
    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    recipe = load_recipe(finished / "recipe.yaml", {f"filter.{k}": v for k, v in rules.items()})
    runner.run_stages(("filter", "mix", "pairs"), recipe, corpus, workers=1)
    return corpus, recipe


def stylized_scores(corpus: Path, *reasons: str | None) -> list[float]:
    """The texture of stylized pairs with one of these reasons, ascending."""
    rows = read_table(corpus / "verdicts.parquet").to_pylist()
    stylized = [row for row in rows if row["group"] is not None]
    return sorted(row["score.texture"] for row in stylized if row["reason"] in reasons)


def test_fixed_thresholds_and_votes_are_lines_at_their_values(
    finished: Path, tmp_path: Path
) -> None:
    threshold = {"score": "texture", "min": 0.1, "max": 0.9}
    vote = {"score": "texture", "min": 0.2}
    corpus, recipe = filtered(finished, tmp_path, thresholds=[threshold], votes=[vote])
    assert find_cutoffs(corpus, recipe) == {
        "texture": [Limit(0.1, "min 0.1"), Limit(0.9, "max 0.9"), Limit(0.2, "vote: min 0.2")]
    }
    text = write_report(corpus).read_text("utf-8")
    assert text.count('<line class="limit" x1="7"') == 1  # in the legend
    assert len(re.findall(r'<line class="limit"', text)) == 1 + 3


def test_a_percentile_is_a_line_between_what_it_dropped_and_what_it_kept(
    finished: Path, tmp_path: Path
) -> None:
    threshold = {"score": "texture", "percentile": 50}
    corpus, recipe = filtered(finished, tmp_path, thresholds=[threshold])
    lost = stylized_scores(corpus, "texture-below-percentile")
    passed = stylized_scores(corpus, None, "not-best")
    assert len(lost) == 12
    (limit,) = find_cutoffs(corpus, recipe)["texture"]
    assert limit.value == pytest.approx(passed[0], abs=1e-6)
    assert lost[-1] < limit.value
    assert limit.label == f"lowest 50 %: {limit.value:.3g}"


def test_a_percentile_counts_only_what_the_thresholds_before_it_left(
    finished: Path, tmp_path: Path
) -> None:
    scores = stylized_scores(finished, None, "not-best")
    first = {"score": "texture", "min": (scores[11] + scores[12]) / 2}
    then = {"score": "texture", "percentile": 50}
    corpus, recipe = filtered(finished, tmp_path, thresholds=[first, then])
    limits = find_cutoffs(corpus, recipe)["texture"]
    assert limits[1].value == pytest.approx(scores[18], abs=1e-6)  # half of the upper half


def test_a_percentile_of_each_style_is_two_lines(finished: Path, tmp_path: Path) -> None:
    threshold = {"score": "texture", "percentile": 50, "within": "style"}
    corpus, recipe = filtered(finished, tmp_path, thresholds=[threshold])
    low, high = find_cutoffs(corpus, recipe)["texture"]
    assert low.value < high.value
    assert low.label == f"lowest 50 % of each style: from {low.value:.3g}"
    assert high.label == f"lowest 50 % of each style: to {high.value:.3g}"


def test_scores_that_are_no_number_are_counted_apart(finished: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    edit_verdicts(corpus, **{"score.texture": math.nan})
    text = write_report(corpus).read_text("utf-8")
    assert "texture, 24 pairs (24 not a number)" in text
    assert "no values" in text


def test_an_unfinished_corpus_is_one_error(finished: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    (corpus / "verdicts.parquet").unlink()
    with pytest.raises(CorpusError, match=r"verdicts\.parquet: expected this table, found nothing"):
        write_report(corpus)


def test_the_diversity_of_each_style_is_escaped() -> None:
    from stylear.curate.report.diversity import diversity_section

    assert diversity_section([]) is None
    row = {"kind": "stylized", "style": "<b>", "pairs": 2, "contents": 2, "styles": 1,
           "sample": 2, "distance": 2.0, "nearest": None, "vendi": 1.5}  # fmt: skip
    section = diversity_section([{**row, "style": None, "kind": "all"}, row])
    assert section is not None
    assert Page(section.body).table("of") == [
        ["all pairs", "2", "2", "1", "2", "2.00", "-", "1.50"],
        ["style <b>", "2", "2", "1", "2", "2.00", "-", "1.50"],
    ]
