"""The rules that compare pairs with each other: styles, votes, copies, quotas; and all of them at random."""

from __future__ import annotations

import random
from typing import Any

import pytest
from builders.candidate_rows import Candidate, decide
from builders.filter_candidates import GREY, NAN, NEAR, raw, reasons, recipe, stylized
from builders.filter_oracle import judged
from builders.random_candidates import random_pairs, random_rules

from stylear.curate.recipe import check_recipe
from stylear.errors import RecipeError

# --- percentiles in each style ----------------------------------------------------------------


def test_a_percentile_within_styles_drops_that_share_of_each() -> None:
    pairs = [stylized(f"m{n}", n / 10, reference=f"mosaic--{n % 2}") for n in range(4)]
    pairs += [stylized(f"n{n}", 0.5 + n / 10, reference="neon--0") for n in range(4)]
    apart = [{"score": "text", "percentile": 25, "within": "style"}]
    reason_of = reasons(pairs, thresholds=apart)
    assert [key for key, reason in reason_of.items() if reason] == ["m0", "n0"]
    assert reason_of["n0"] == "text-below-percentile"
    for pair in pairs:
        pair.kept, pair.stage, pair.reason = True, None, None
    together = [{"score": "text", "percentile": 25}]
    assert [key for key, reason in reasons(pairs, thresholds=together).items() if reason] == [
        "m0",
        "m1",
    ]


def test_a_percentile_within_a_style_rounds_down_there() -> None:
    pairs = [stylized(f"m{n}", n / 10) for n in range(3)]
    pairs += [stylized(f"n{n}", n / 10, reference="neon") for n in range(4)]
    reason_of = reasons(pairs, thresholds=[{"score": "text", "percentile": 30, "within": "style"}])
    assert [key for key, reason in reason_of.items() if reason] == ["n0"]


# --- votes ------------------------------------------------------------------------------------

VOTES = [{"score": "text", "min": 0.5}, {"score": "style", "min": 0.5}]


def voters(*scores: tuple[float | None, float | None]) -> list[Candidate]:
    return [
        stylized("abcdef"[n], scores={"text": text, "style": style})
        for n, (text, style) in enumerate(scores)
    ]


def test_so_many_votes_as_asked_keep_a_pair() -> None:
    pairs = [(0.9, 0.9), (0.9, 0.1), (0.1, 0.9), (0.1, 0.1)]
    for at_least, kept in ((1, ["a", "b", "c"]), (2, ["a"]), (None, ["a"])):
        reason_of = reasons(voters(*pairs), votes=VOTES, at_least=at_least)
        assert [key for key, reason in reason_of.items() if reason is None] == kept
        assert set(reason_of.values()) - {None} == {"outvoted"}


def test_more_than_half_of_the_votes_keep_a_pair_unless_asked() -> None:
    third = [*VOTES, {"score": "text", "max": 0.95}]
    reason_of = reasons(voters((0.9, 0.1), (0.96, 0.1), (0.1, 0.1)), votes=third)
    assert reason_of == {"a": None, "b": "outvoted", "c": "outvoted"}


def test_a_missing_score_is_no_vote_against_a_pair_and_not_a_number_is() -> None:
    reason_of = reasons(voters((0.9, None), (None, None), (0.9, NAN), (0.1, None)), votes=VOTES)
    assert reason_of == {"a": None, "b": None, "c": "outvoted", "d": "outvoted"}


def test_all_votes_see_the_same_pairs() -> None:
    """The lowest of each score is voted against once, and the second lowest of neither."""
    votes = [{"score": name, "percentile": 34} for name in ("text", "style")]
    reason_of = reasons(voters((0.1, 0.7), (0.2, 0.1), (0.3, 0.8)), votes=votes, at_least=2)
    assert reason_of == {"a": "outvoted", "b": "outvoted", "c": None}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"votes": VOTES, "at_least": 3}, r"at_least: expected at most 2, the number of votes"),
        ({"at_least": 1}, r"at_least: expected at most 0, the number of votes"),
        (
            {"votes": [{"score": "txt", "min": 0}]},
            r"no scorer is called 'txt'; did you mean text\?",
        ),
        (
            {"thresholds": [{"score": "text", "min": 0, "within": "style"}]},
            r"within: style needs a percentile",
        ),
        ({"per_style": 0}, r"filter\.per_style: expected greater than or equal to 1, found 0"),
    ],
)
def test_rules_that_cannot_hold_are_refused(
    rules: dict[str, Any], message: str, tmp_path: Any
) -> None:
    values = recipe().model_dump(mode="json", exclude={"synthesize"})
    with pytest.raises(RecipeError, match=message):
        check_recipe(values | {"filter": rules}, tmp_path)


# --- the best copy stays ----------------------------------------------------------------------


def near(key: str, rank: float | None, bits: int = 0) -> Candidate:
    return stylized(key, rank=rank, phash=f"{bits:016x}", colour=GREY)


def test_the_best_of_near_duplicates_stays() -> None:
    pairs = [near("a", 0.2), near("b", 0.9, 0b1), near("c", 0.5, 0b11)]
    assert reasons(pairs, duplicates=NEAR) == {
        "a": "near-duplicate", "b": None, "c": "near-duplicate",
    }  # fmt: skip
    assert [pair.duplicate_of for pair in pairs] == ["b", None, "b"]


def test_ties_of_near_duplicates_go_to_the_lower_key() -> None:
    pairs = [near("b", 0.5), near("a", 0.5), near("c", None)]
    reason_of = reasons(pairs, duplicates=NEAR)
    assert reason_of == {"b": "near-duplicate", "a": None, "c": "near-duplicate"}


def test_the_next_best_stays_where_a_rule_dropped_the_best() -> None:
    pairs = [near("a", 0.9), near("b", 0.5), near("c", 0.2)]
    for pair, style in zip(pairs, (0.1, 0.6, 0.7), strict=True):
        pair.scores["style"] = style
    reason_of = reasons(pairs, duplicates=NEAR, thresholds=[{"score": "style", "min": 0.5}])
    assert reason_of == {"a": "style-below-min", "b": None, "c": "near-duplicate"}
    assert [pair.duplicate_of for pair in pairs] == [None, None, "b"]


def test_no_chain_joins_what_is_not_near_the_best() -> None:
    """b is near a and c; a and c are not near each other. With b best all are one group, else two."""
    chain = {"a": 0, "b": 0b1111, "c": 0b11111111}
    middle = [near(key, 0.9 if key == "b" else 0.5, bits) for key, bits in chain.items()]
    assert reasons(middle, duplicates=NEAR) == {
        "a": "near-duplicate", "b": None, "c": "near-duplicate",
    }  # fmt: skip
    end = [near(key, 0.9 if key == "a" else 0.5, bits) for key, bits in chain.items()]
    assert reasons(end, duplicates=NEAR) == {"a": None, "b": "near-duplicate", "c": None}


def test_the_best_caption_of_the_same_bytes_stays() -> None:
    one: dict[str, Any] = {"image_sha256": "s"}
    pairs = [
        raw("a", source="http://x/1", content="thing", rank=0.1, **one),
        raw("b", source="http://x/2", content="a red bus", rank=0.8, **one),
        raw("c", source="http://x/2", content="a bus", rank=0.3, **one),
        raw("d", source="http://x/2", content="a red bus", rank=0.7, **one),
    ]
    assert reasons(pairs, duplicates={"exact": True, "phash_distance": None}) == {
        "a": "duplicate", "b": None, "c": None, "d": "duplicate",
    }  # fmt: skip
    assert [pair.duplicate_of for pair in pairs] == ["b", None, None, "b"]


# --- quotas -----------------------------------------------------------------------------------


def test_a_style_keeps_its_best_pairs_ties_by_key() -> None:
    ranks = {"a": 0.5, "b": 0.9, "c": 0.5, "d": None, "e": 0.1}
    pairs = [stylized(key, rank=rank, reference="m--1") for key, rank in ranks.items()]
    pairs += [stylized("x", rank=0.0, reference="neon"), raw("r")]
    reason_of = reasons(pairs, per_style=2)
    assert reason_of == {
        "a": None, "b": None, "c": "style-quota", "d": "style-quota", "e": "style-quota",
        "x": None, "r": None,
    }  # fmt: skip
    pairs = [stylized(key, rank=0.5, reference=f"m--{key}") for key in "ab"]
    assert reasons(pairs, per_style=1) == {"a": None, "b": "style-quota"}


def test_a_content_keeps_its_best_pairs_raw_and_stylized_apart() -> None:
    pairs = [
        stylized("a", content="cat", rank=0.1),
        stylized("b", content="cat", rank=0.2, reference="neon"),
        raw("c", content="cat", rank=0.3),
        raw("d", content="cat", rank=0.4),
        raw("e", content="dog"),
    ]
    assert reasons(pairs, per_content=1) == {
        "a": "content-quota", "b": None, "c": "content-quota", "d": None, "e": None,
    }  # fmt: skip


def test_contents_are_counted_before_styles() -> None:
    """Else two cats would fill the style, and the dog that was dropped for them would be missed."""
    pairs = [
        stylized("a", content="cat", rank=0.9),
        stylized("b", content="cat", rank=0.8),
        stylized("c", content="dog", rank=0.1),
    ]
    reason_of = reasons(pairs, per_content=1, per_style=2)
    assert reason_of == {"a": None, "b": "content-quota", "c": None}


def test_quotas_count_what_other_rules_kept() -> None:
    pairs = [near("a", 0.9), near("b", 0.8), near("c", 0.7, 1 << 40 | 0xFFFF)]
    reason_of = reasons(pairs, per_style=2, duplicates=NEAR)
    assert reason_of == {"a": None, "b": "near-duplicate", "c": None}


# --- everything at random ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(25))
def test_the_rules_decide_what_their_description_says(seed: int) -> None:
    draw = random.Random(seed)
    pairs, settings = random_pairs(draw), recipe(**random_rules(draw))
    expected = judged(pairs, settings.filter)
    reason_of = {pair.key: (pair.reason, pair.duplicate_of) for pair in decide(pairs, settings)}
    assert reason_of == expected
    assert len(reason_of) == 250


def test_the_random_rules_drop_for_every_reason() -> None:
    seen_reasons: set[str | None] = set()
    for seed in range(25):
        draw = random.Random(seed)
        pairs, settings = random_pairs(draw), recipe(**random_rules(draw))
        seen_reasons |= {reason for reason, _ in judged(pairs, settings.filter).values()}
    names = {f"{s}-{why}" for s in ("text", "style") for why in ("below-min", "above-max")}
    names |= {
        f"{s}-{why}" for s in ("text", "style") for why in ("not-a-number", "below-percentile")
    }
    others = {None, "timeout", "outvoted", "not-best", "duplicate", "near-duplicate"}
    assert seen_reasons == names | others | {"style-quota", "content-quota"}


def test_a_recipe_without_rules_drops_nothing() -> None:
    pairs = [stylized("a", 0.1), raw("b", NAN)]
    assert [pair.kept for pair in decide(pairs, recipe())] == [True, True]
