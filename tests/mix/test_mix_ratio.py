"""The ratio of raw to stylized pairs: what is drawn, and what is said and done if there is too little."""

from __future__ import annotations

from collections import Counter

import pytest
from builders.candidate_rows import Candidate
from builders.mixed_corpus import (
    assigned,
    mix_recipe,
    names_in,
    raw_candidate,
    stylized_candidate,
)

from stylear.curate.mix.shortfall import describe_shortfalls
from stylear.errors import CorpusError


def many(raw_count: int, stylized_count: int) -> list[Candidate]:
    contents = names_in("train", "content", raw_count)
    style = names_in("train", "reference", 1)[0]
    pairs = [raw_candidate(f"r{n}", contents[n]) for n in range(raw_count)]
    return pairs + [stylized_candidate(f"s{n}", contents[n], style) for n in range(stylized_count)]


@pytest.mark.parametrize(
    ("ratio", "raw_count", "stylized_count", "taken"),
    [
        (3.0, 20, 4, 12),
        (3.0, 9, 4, 9),  # too few: all of them
        (1.0, 20, 4, 4),
        (0.5, 20, 5, 3),  # 2.5 rounds up
        (0.0, 20, 4, 0),
        (3.0, 20, 0, 20),  # a ratio to nothing asks for nothing
    ],
)
def test_raw_pairs_are_drawn_to_the_ratio(
    ratio: float, raw_count: int, stylized_count: int, taken: int
) -> None:
    assignments = assigned(many(raw_count, stylized_count), mix_recipe(raw_per_stylized=ratio))
    kinds = Counter((key[0], where) for key, where in assignments.items())
    assert kinds[("r", "train")] == taken
    assert kinds[("r", "ratio")] == raw_count - taken
    assert kinds[("s", "train")] == stylized_count


def test_with_too_few_raw_pairs_fewer_stylized_ones_are_taken_on_request() -> None:
    pairs = many(9, 4)
    assignments = assigned(pairs, mix_recipe(raw_per_stylized=3.0, on_shortfall="scale"))
    kinds = Counter((key[0], where) for key, where in assignments.items())
    assert kinds == {("r", "train"): 9, ("s", "train"): 3, ("s", "ratio"): 1}
    again = assigned(pairs[::-1], mix_recipe(raw_per_stylized=3.0, on_shortfall="scale"))
    assert again == assignments  # which ones does not depend on their order


def test_with_too_few_raw_pairs_the_mix_stops_on_request() -> None:
    with pytest.raises(
        CorpusError, match=r"train needs 12 raw pairs for its 4 stylized ones.* found 9"
    ):
        assigned(many(9, 4), mix_recipe(raw_per_stylized=3.0, on_shortfall="fail"))
    assigned(many(12, 4), mix_recipe(raw_per_stylized=3.0, on_shortfall="fail"))


def test_a_shortfall_says_what_was_asked_and_what_was_got() -> None:
    settings = mix_recipe(raw_per_stylized=3.0).model_copy(update={"references": ("some",)})
    whole = {"train": {"raw": 299, "stylized": 100}, "val": {"raw": 3, "stylized": 1}}
    assert describe_shortfalls(whole, settings) == []  # rounding
    short = {"train": {"raw": 62, "stylized": 100}, "val": {"raw": 5, "stylized": 0}}
    first, second = describe_shortfalls(short, settings)
    assert first.startswith("train has 0.62 raw pairs for each stylized one, not the 3 asked")
    assert "mix.on_shortfall: scale" in first
    assert second.startswith("val has no stylized pair, so training cannot be validated on it")
    assert describe_shortfalls(short, mix_recipe()) == []  # without references nothing is asked
    none = {"train": {"raw": 9, "stylized": 0}, "val": {"raw": 3, "stylized": 1}}
    assert describe_shortfalls(none, settings)[0].startswith("train has no stylized pair")


def test_the_ratio_holds_in_each_split() -> None:
    pairs = []
    for split, count in (("train", 3), ("val", 2)):
        style = names_in(split, "reference", 1)[0]
        for number, content in enumerate(names_in(split, "content", 12)):
            pairs.append(raw_candidate(f"r{split}{number}", content))
            if number < count:
                pairs.append(stylized_candidate(f"s{split}{number}", content, style))
    counts = Counter((key[0], where) for key, where in assigned(pairs, mix_recipe()).items())
    assert counts == {
        ("s", "train"): 3, ("r", "train"): 9, ("s", "val"): 2, ("r", "val"): 6, ("r", "ratio"): 9,
    }  # fmt: skip


def test_which_raw_pairs_are_drawn_depends_on_the_seed_and_not_on_their_order() -> None:
    pairs = many(20, 4)
    settings = mix_recipe(val_fraction=0, raw_per_stylized=1.0)
    first = {key for key, where in assigned(pairs, settings).items() if where == "train"}
    assert {k for k, where in assigned(pairs[::-1], settings).items() if where == "train"} == first
    other = settings.model_copy(update={"seed": 1})
    assert {k for k, where in assigned(pairs, other).items() if where == "train"} != first


def test_what_the_filter_dropped_is_not_placed() -> None:
    pairs = many(4, 1)
    pairs[0].drop("duplicate")
    pairs[4].drop("not-best")
    assert assigned(pairs, mix_recipe()) == {"r1": "train", "r2": "train", "r3": "train"}
