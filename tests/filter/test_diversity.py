"""Diversity: hand-made corpora whose numbers are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from builders.candidate_rows import Candidate, rows
from builders.filter_candidates import GREY, raw, recipe, stylized

from stylear.curate.filter import count_kept, measure_all_diversity
from stylear.curate.filter.diversity import (
    SAMPLE,
    STYLE_SAMPLE,
    compute_pairwise_distances,
    compute_vendi_score,
    draw_sample,
)
from stylear.curate.recipe import Recipe


def measured(pairs: list[Candidate], settings: Recipe | None = None) -> dict[str, dict[str, Any]]:
    """The row of each style, or of each kind."""
    measures = measure_all_diversity(rows(pairs, None)[1], settings or recipe())
    return {row["style"] or row["kind"]: row for row in measures}


def test_the_vendi_score_counts_what_differs() -> None:
    assert compute_vendi_score(np.eye(7)) == pytest.approx(7)
    assert compute_vendi_score(np.ones((5, 5))) == pytest.approx(1)
    two = np.kron(np.eye(2), np.ones((3, 3)))  # two pictures, three times each
    assert compute_vendi_score(two) == pytest.approx(2)


def test_the_vendi_score_of_two_alike_pictures_is_between_one_and_two() -> None:
    """Eigenvalues of K / 2 are (1 + s) / 2 and (1 - s) / 2."""
    high, low = 0.75, 0.25
    expected = math.exp(-high * math.log(high) - low * math.log(low))
    assert compute_vendi_score(np.array([[1, 0.5], [0.5, 1]])) == pytest.approx(expected)


def test_distances_are_bits_and_mean_levels() -> None:
    bits, levels = compute_pairwise_distances(
        np.array([0, 0b111], np.uint64), np.array([[0] * 12, [12] * 6 + [0] * 6], np.uint8)
    )
    assert bits.tolist() == [[0, 3], [3, 0]]
    assert levels.tolist() == [[0, 6], [6, 0]]


def picture(key: str, bits: int, **changes: Any) -> Candidate:
    return stylized(key, phash=f"{bits:016x}", colour=GREY, **changes)


def test_each_style_and_kind_has_a_row() -> None:
    pairs = [
        picture("a", 0, content="x", reference="m--1"),
        picture("b", 0b11, content="x", reference="m--2"),
        picture("c", 0b111111, content="y", reference="m--1"),
        picture("d", 0, content="z", reference="n--1", kept=False, reason="timeout"),
        raw("e", content="x"),
        raw("f", content="w", phash="f" * 16, colour=GREY),
    ]
    measures = measured(pairs)
    counts = ("pairs", "contents", "styles", "sample")
    assert {name: [row[count] for count in counts] for name, row in measures.items()} == {
        "all": [5, 3, 1, 4], "raw": [2, 2, 0, 1], "stylized": [3, 2, 1, 3], "m": [3, 2, 1, 3],
    }  # fmt: skip
    assert measures["m"]["distance"] == round((2 + 2 + 4) / 3, 2)
    assert (measures["raw"]["distance"], measures["raw"]["vendi"]) == (None, 1.0)
    assert count_kept(rows(pairs, None)[1]) == {"pairs": 5, "contents": 3, "styles": 1}


def test_the_vendi_score_of_a_style_is_of_its_hashes_and_colours() -> None:
    """8 bits apart: similarity 1 / e, as 32 levels apart."""
    s = math.exp(-1)
    high, low = (1 + s) / 2, (1 - s) / 2
    expected = round(math.exp(-high * math.log(high) - low * math.log(low)), 2)
    assert measured([picture("a", 0), picture("b", 0xFF)])["mosaic"]["vendi"] == expected
    other = stylized("b", phash="0" * 16, colour="a0" * 12)
    assert measured([picture("a", 0), other])["mosaic"]["vendi"] == expected


def test_the_nearest_score_is_reported_where_the_recipe_has_one() -> None:
    assert measured([picture("a", 0)])["mosaic"]["nearest"] is None
    scores = [spec.model_copy(update={"type": "nearest"}) for spec in recipe().score[:1]]
    settings = recipe().model_copy(update={"score": tuple(scores)})
    values = [0.5, 0.7, None, float("nan")]
    pairs = [picture("abcd"[n], n, scores={"text": value}) for n, value in enumerate(values)]
    assert measured(pairs, settings)["mosaic"]["nearest"] == 0.6


def test_samples_are_bounded_and_the_same_every_time() -> None:
    places = np.arange(10, 5010)
    sample = draw_sample(places, SAMPLE, "0a" * 16)
    assert sample.tolist() == draw_sample(places, SAMPLE, "0a" * 16).tolist()
    assert sample.tolist() == sorted(set(sample.tolist()))
    assert (len(sample), sample.min() >= 10) == (SAMPLE, True)
    assert sample.tolist() != draw_sample(places, SAMPLE, "0b" * 16).tolist()
    assert draw_sample(places[:3], SAMPLE, "0a" * 16).tolist() == [10, 11, 12]
    many = [picture(f"{n:04d}", n * 77) for n in range(STYLE_SAMPLE + 50)]
    sizes = {name: row["sample"] for name, row in measured(many).items()}
    assert sizes == {"all": 306, "raw": 0, "stylized": 306, "mosaic": 256}


def test_a_corpus_without_pairs_has_nothing_to_measure() -> None:
    measures = measured([])
    assert [row["pairs"] for row in measures.values()] == [0, 0, 0]
    assert {row["vendi"] for row in measures.values()} == {None}
