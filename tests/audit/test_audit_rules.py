"""The audit of rules: verdicts that the recipe's rules would not give are named pair by pair."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders.damaged_corpus import edit_table
from builders.forgotten_corpus import forget_one

from stylear.curate.audit.auditor import audit
from stylear.curate.audit.rules import check_rules, explain_no_comparison
from stylear.curate.corpus.answers import Answer, append_answer
from stylear.curate.corpus.layout import RECIPE
from stylear.curate.corpus.parquet import read_table
from stylear.curate.recipe import load_recipe


def differences_of(corpus: Path, **changes: Any) -> list[tuple[str, str, str | None]]:
    recipe = load_recipe(corpus / RECIPE, changes)
    return [
        (difference.expected, difference.found, difference.key)
        for difference in check_rules(corpus, recipe)
    ]


def test_the_rules_give_the_verdicts_of_an_untouched_corpus(finished: Path) -> None:
    assert differences_of(finished) == []


def test_a_pair_kept_against_the_rules_is_found(corpus: Path) -> None:
    def keep(rows: list[dict[str, Any]]) -> None:
        row = next(row for row in rows if row["reason"] == "not-best")
        row.update(kept=True, stage=None, reason=None)

    keys = read_table(corpus / "verdicts.parquet", ["key", "reason"]).to_pylist()
    edit_table(corpus / "verdicts.parquet", keep)
    key = next(row["key"] for row in keys if row["reason"] == "not-best")
    assert differences_of(corpus) == [("dropped as not-best", "kept", key)]


@pytest.mark.parametrize(
    ("change", "found_as"),
    [
        (lambda row: row.update(kept=False, stage="filter", reason="duplicate"), "duplicate"),
        (lambda row: row.update(kept=False, stage="filter", reason="disliked"), "disliked"),
    ],
)
def test_a_pair_dropped_against_the_rules_is_found(
    corpus: Path, change: Callable[[dict[str, Any]], None], found_as: str
) -> None:
    edit_table(corpus / "verdicts.parquet", lambda rows: change(rows[0]))
    [(expected, now, _)] = differences_of(corpus)
    assert (expected, now) == ("kept", f"dropped as {found_as}")


def test_a_quota_that_was_not_kept_is_found(corpus: Path) -> None:
    """The verdicts are those of a recipe without the quota."""
    over = differences_of(corpus, **{"filter.per_style": 2})
    assert over
    assert {(expected, now) for expected, now, _ in over} == {("dropped as style-quota", "kept")}


def test_scores_that_the_rules_did_not_see_are_found(corpus: Path) -> None:
    edit_table(
        corpus / "scores" / "texture" / "stylized-00000.parquet",
        lambda rows: rows[0].update(texture=0.125),
    )
    [difference] = check_rules(corpus, load_recipe(corpus / RECIPE))
    assert difference.where == "columns.parquet score.texture"
    assert difference.expected == "the scores in scores/texture/stylized-00000.parquet"


def test_rules_are_not_compared_where_pairs_were_forgotten_or_people_answered_since(
    finished: Path, corpus: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(corpus / RECIPE)
    assert explain_no_comparison(corpus, recipe) is None
    done = forget_one(finished, tmp_path / "forgotten")
    rows = {check.check: check for check in audit(done.corpus).checks}
    assert (rows["rules"].result, rows["rules"].examined) == (
        "passed",
        "not compared: pairs were forgotten",
    )
    key = read_table(corpus / "verdicts.parquet", ["key"])["key"][0].as_py()
    append_answer(corpus, Answer("pair", key, "ann", "drop"))
    assert explain_no_comparison(corpus, recipe) == "people answered since the filter ran"
