"""Strengths and win rates against numbers derived by hand."""

from __future__ import annotations

import numpy as np
import pytest

from stylear.curate.corpus.answers import Answer, Side
from stylear.curate.review.bradley_terry import (
    fit_strengths,
    is_connected,
    resample_clusters,
    win_rates,
)
from stylear.curate.review.summary import Estimate, summarize, to_json


def choices(model: str, against: str, wins: int, losses: int, ties: int = 0) -> list[Answer]:
    """Each in a group of its own; the first model is shown left and right in turn."""
    answers = []
    for number, answer in enumerate(["first"] * wins + ["second"] * losses + ["tie"] * ties):
        sides = Side(model, f"{model}/{number}"), Side(against, f"{against}/{number}")
        word = {"first": "left", "second": "right", "tie": "tie"}[answer]
        if number % 2:
            sides, word = sides[::-1], {"left": "right", "right": "left", "tie": "tie"}[word]
        name = f"{model}-{against}-{number}"
        answers.append(Answer("choice", name, "ann", word, f"group {number}", sides))
    return answers


def test_two_models_have_their_win_rates_as_strengths() -> None:
    wins = np.array([[0.0, 3.0], [1.0, 0.0]])
    assert fit_strengths(wins) == pytest.approx([0.75, 0.25], abs=1e-8)
    assert win_rates(wins).tolist() == [0.75, 0.25]


def test_counts_that_the_model_explains_exactly_give_its_strengths() -> None:
    """4 : 2 : 1 predicts 2/3, 2/3 and 4/5 of the comparisons, which is what was counted."""
    wins = np.array([[0.0, 4.0, 8.0], [2.0, 0.0, 6.0], [2.0, 3.0, 0.0]])
    assert fit_strengths(wins) == pytest.approx([4 / 7, 2 / 7, 1 / 7], abs=1e-6)


def test_models_that_were_never_compared_get_strengths_through_a_third() -> None:
    """a beats b 3 to 1, b beats c 3 to 1: 9 : 3 : 1."""
    wins = np.array([[0.0, 3.0, 0.0], [1.0, 0.0, 3.0], [0.0, 1.0, 0.0]])
    assert is_connected(wins)
    assert fit_strengths(wins) == pytest.approx([9 / 13, 3 / 13, 1 / 13], abs=1e-6)


def test_a_model_that_never_wins_has_strength_0() -> None:
    assert fit_strengths(np.array([[0.0, 5.0], [0.0, 0.0]])).tolist() == [1.0, 0.0]
    assert fit_strengths(np.zeros((2, 2))).tolist() == [0.5, 0.5]


def test_strengths_of_several_tables_are_those_of_each() -> None:
    tables = np.array([[[0.0, 3.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
    assert fit_strengths(tables) == pytest.approx(np.array([[0.75, 0.25], [0.5, 0.5]]), abs=1e-8)


def test_resampling_draws_as_many_groups_as_there_are_and_depends_on_the_seed_alone() -> None:
    clusters = np.array([[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]])
    draws = resample_clusters(clusters, seed=3, draws=50)
    assert draws.sum(axis=(1, 2)).tolist() == [2.0] * 50
    assert (draws == resample_clusters(clusters, seed=3, draws=50)).all()
    assert set(draws[:, 0, 1].tolist()) == {0.0, 1.0, 2.0}


def test_the_table_of_models_has_wins_ties_and_intervals() -> None:
    summary = summarize(choices("ours", "theirs", wins=6, losses=2, ties=2))
    ours, theirs = summary["models"]
    assert (ours["model"], ours["comparisons"], ours["wins"], ours["ties"]) == ("ours", 10, 6, 2)
    assert (theirs["model"], theirs["wins"], theirs["ties"]) == ("theirs", 2, 2)
    assert ours["win_rate"].value == pytest.approx(0.7)
    assert ours["strength"].value == pytest.approx(0.7, abs=1e-8)
    assert 0.3 < ours["win_rate"].low < 0.7 < ours["win_rate"].high <= 1.0
    assert theirs["win_rate"].high == pytest.approx(1 - ours["win_rate"].low)
    [duel] = summary["duels"]
    assert (duel["model"], duel["against"], duel["comparisons"]) == ("ours", "theirs", 10)
    assert duel["win_rate"] == ours["win_rate"]


def test_ten_wins_of_ten_have_an_interval_without_width() -> None:
    [best, _] = summarize(choices("ours", "theirs", wins=10, losses=0))["models"]
    assert best["win_rate"] == Estimate(1.0, 1.0, 1.0)


def test_models_that_nothing_joins_have_win_rates_and_no_strengths() -> None:
    summary = summarize([*choices("a", "b", 3, 1), *choices("c", "d", 2, 2)])
    assert not summary["comparable"]
    assert [row["strength"] for row in summary["models"]] == [None] * 4
    assert [row["win_rate"].value for row in summary["models"]] == [0.75, 0.5, 0.5, 0.25]


def test_choices_within_one_model_do_not_count() -> None:
    assert summarize(choices("ours", "ours", 3, 1))["models"] == []


def test_reviewers_and_their_agreement_are_counted() -> None:
    pairs = [("a", "ann", "keep"), ("a", "bo", "keep"), ("b", "ann", "drop"), ("b", "bo", "keep"),
             ("c", "ann", "drop")]  # fmt: skip
    summary = to_json(summarize([Answer("pair", key, who, what) for key, who, what in pairs]))
    assert summary["reviewers"] == [
        {"reviewer": "ann", "keep": 1, "drop": 2, "left": 0, "right": 0, "tie": 0},
        {"reviewer": "bo", "keep": 2, "drop": 0, "left": 0, "right": 0, "tie": 0},
    ]
    assert summary["pairs"] == {
        "judged": 3, "more_drop_than_keep": 1, "judged_by_several": 2, "unanimous": 1,
    }  # fmt: skip
    assert summary["models"] == []
