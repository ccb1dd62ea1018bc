"""Thresholds and percentiles: what is out of range is dropped."""

from __future__ import annotations

from builders.filter_candidates import NAN, raw, reasons, stylized


def test_a_minimum_keeps_what_equals_it() -> None:
    pairs = [stylized("a", 0.29), stylized("b", 0.3), stylized("c", 0.31)]
    assert reasons(pairs, thresholds=[{"score": "text", "min": 0.3}]) == {
        "a": "text-below-min", "b": None, "c": None,
    }  # fmt: skip
    assert [(p.kept, p.stage) for p in pairs] == [(False, "filter"), (True, None), (True, None)]


def test_a_maximum_keeps_what_equals_it() -> None:
    pairs = [stylized("a", 0.9), stylized("b", 0.91)]
    assert reasons(pairs, thresholds=[{"score": "text", "max": 0.9}]) == {
        "a": None, "b": "text-above-max",
    }  # fmt: skip


def test_an_absolute_threshold_judges_raw_pairs_too() -> None:
    pairs = [raw("a", 0.1), raw("b", 0.2)]
    reason_of = reasons(pairs, thresholds=[{"score": "text", "min": 0.15}])
    assert reason_of == {"a": "text-below-min", "b": None}


def test_a_pair_without_the_score_passes() -> None:
    pairs = [raw("a", None), stylized("b", None), stylized("c", 0.1)]
    reason_of = reasons(pairs, thresholds=[{"score": "text", "min": 0.5, "percentile": 50}])
    assert reason_of == {"a": None, "b": None, "c": "text-below-min"}


def test_not_a_number_lies_outside_every_threshold() -> None:
    for threshold in ({"min": -1.0}, {"max": 2.0}, {"percentile": 1.0}):
        pairs = [stylized("a", NAN), raw("b", NAN), stylized("c", 0.5)]
        assert reasons(pairs, thresholds=[{"score": "text", **threshold}]) == {
            "a": "text-not-a-number", "b": "text-not-a-number", "c": None,
        }  # fmt: skip


def test_a_percentile_drops_that_share_of_the_stylized_pairs() -> None:
    pairs = [stylized(str(n), n / 10) for n in range(10)]
    reason_of = reasons(pairs, thresholds=[{"score": "text", "percentile": 30}])
    assert [key for key, reason in reason_of.items() if reason] == ["0", "1", "2"]
    assert reason_of["0"] == "text-below-percentile"


def test_a_percentile_rounds_down() -> None:
    pairs = [stylized(str(n), n / 10) for n in range(10)]
    reason_of = reasons(pairs, thresholds=[{"score": "text", "percentile": 39.9}])
    assert [key for key, reason in reason_of.items() if reason] == ["0", "1", "2"]
    pairs = [stylized("only", 0.5)]
    assert reasons(pairs, thresholds=[{"score": "text", "percentile": 99}]) == {"only": None}


def test_a_percentile_drops_nothing_that_ties_with_what_it_keeps() -> None:
    values = {"a": 0.1, "b": 0.2, "c": 0.2, "d": 0.2, "e": 0.9}
    pairs = [stylized(key, value) for key, value in values.items()]
    reason_of = reasons(pairs, thresholds=[{"score": "text", "percentile": 60}])
    assert reason_of == {"a": "text-below-percentile", "b": None, "c": None, "d": None, "e": None}


def test_a_percentile_neither_counts_nor_drops_raw_pairs_and_nan() -> None:
    pairs = [raw("r", 0.0), stylized("n", NAN), stylized("a", 0.1), stylized("b", 0.2)]
    assert reasons(pairs, thresholds=[{"score": "text", "percentile": 50}]) == {
        "r": None, "n": "text-not-a-number", "a": "text-below-percentile", "b": None,
    }  # fmt: skip


def test_a_percentile_is_of_what_earlier_rules_kept() -> None:
    pairs = [stylized(str(n), n / 10) for n in range(4)]
    rules = [{"score": "text", "min": 0.2}, {"score": "text", "percentile": 50}]
    assert reasons(pairs, thresholds=rules) == {
        "0": "text-below-min", "1": "text-below-min", "2": "text-below-percentile", "3": None,
    }  # fmt: skip
