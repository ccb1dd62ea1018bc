"""Best of n, and the ranks that decide it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from builders.candidate_rows import Candidate
from builders.filter_candidates import NAN, raw, reasons, stylized

from stylear.curate.filter.ranking import choose_ranking_scores, harmonic_mean, rank_pairs
from stylear.curate.recipe import Recipe


def group(*ranks: float | None) -> list[Candidate]:
    return [stylized("abcdef"[n], group="g", rank=rank_pairs) for n, rank_pairs in enumerate(ranks)]


def test_the_best_of_a_group_stay() -> None:
    assert reasons(group(0.2, 0.5, 0.4), best_of=1) == {"a": "not-best", "b": None, "c": "not-best"}
    assert reasons(group(0.2, 0.5, 0.4), best_of=2) == {"a": "not-best", "b": None, "c": None}
    assert reasons(group(0.2, 0.5, 0.4), best_of=3) == {"a": None, "b": None, "c": None}


def test_ties_go_to_the_lower_key_and_unranked_ones_last() -> None:
    assert reasons(group(0.5, 0.5, 0.5), best_of=1) == {"a": None, "b": "not-best", "c": "not-best"}
    assert reasons(group(None, NAN, 0.0), best_of=1) == {
        "a": "not-best",
        "b": "not-best",
        "c": None,
    }
    assert reasons(group(None, None), best_of=1) == {"a": None, "b": "not-best"}


def test_each_group_has_its_best_and_pairs_without_one_stay() -> None:
    pairs = [*group(0.1, 0.2), stylized("x", group="other", rank=0.01), stylized("y"), raw("z")]
    reason_of = reasons(pairs, best_of=1)
    assert [key for key, reason in reason_of.items() if reason] == ["a"]


def test_a_dropped_candidate_takes_no_place_in_its_group() -> None:
    pairs = group(0.9, 0.5, 0.4)
    pairs[0].drop("text-below-min")
    assert reasons(pairs, best_of=1) == {"a": "text-below-min", "b": None, "c": "not-best"}


@pytest.mark.parametrize(
    ("text", "style", "mean"),
    [
        (0.5, 0.5, 0.5),
        (0.25, 0.75, 0.375),
        (1.0, 0.0, 0.0),
        (0.0, 0.0, 0.0),
        (-0.5, 0.5, 0.0),
        (None, 0.5, None),
        (0.5, None, None),
        (NAN, 0.5, None),
        (0.5, NAN, None),
    ],
)
def test_the_harmonic_mean(text: float | None, style: float | None, mean: float | None) -> None:
    columns = (np.array([NAN if value is None else value]) for value in (text, style))
    [result] = harmonic_mean(*columns).tolist()
    assert math.isnan(result) if mean is None else result == mean


def test_candidates_are_ranked_by_both_scores_or_by_the_one_there_is() -> None:
    scores: dict[str, float | None] = {"text": 0.3, "style": 0.6, "bad": NAN, "none": None}

    columns = {name: pa.array([value] * 2, pa.float32()) for name, value in scores.items()}

    def ranked(text: str | None, style: str | None) -> list[float]:
        ranks: list[float] = rank_pairs(columns, np.array([True, False]), text, style).tolist()
        return ranks

    assert ranked("text", "style") == [pytest.approx(0.4), pytest.approx(0.3)]
    assert ranked("text", None) == [pytest.approx(0.3), pytest.approx(0.3)]
    rank, came = ranked(None, "style")
    assert (rank, math.isnan(came)) == (pytest.approx(0.6), True)
    for name in ("bad", "none", None):
        assert np.isnan(ranked(name, None)).all()


def test_the_ranking_scores_are_those_asked_for_or_the_first_of_their_kind() -> None:
    scores = [
        {"name": "look", "type": "clip-image"},
        {"name": "stroke", "type": "texture"},
        {"name": "words", "type": "clip-text"},
        {"name": "more", "type": "clip-text"},
    ]
    values: dict[str, Any] = {"name": "test", "raw": [{"type": "mini"}]}
    assert choose_ranking_scores(Recipe.model_validate(values)) == (None, None)
    assert choose_ranking_scores(Recipe.model_validate(values | {"score": scores})) == (
        "words",
        "stroke",
    )
    assert choose_ranking_scores(Recipe.model_validate(values | {"score": scores[:1]})) == (
        None,
        "look",
    )
    rules = {"text_score": "more", "style_score": "look"}
    asked_for = Recipe.model_validate(values | {"score": scores, "filter": rules})
    assert choose_ranking_scores(asked_for) == ("more", "look")
