"""The embedded drawings as a source."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stylear.curate.corpus.records import image_extension
from stylear.curate.fetch import mini
from stylear.curate.fetch.mini import read_mini
from stylear.curate.recipe import MiniSource
from stylear.errors import RecipeError, SourceError
from stylear.pair import Pair, content_id


def pairs(seed: int = 0, **changes: Any) -> list[Pair]:
    return list(read_mini(MiniSource.model_validate({"type": "mini", **changes}), seed))


ALL = pairs()


def test_every_concept_is_drawn_in_two_hands() -> None:
    assert len(ALL) == len({pair.key for pair in ALL}) == 1642
    assert Counter(Counter(pair.origin.content for pair in ALL).values()) == {2: 821}
    assert Counter(pair.origin.details["vendor"] for pair in ALL) == {"noto": 821, "twemoji": 821}
    assert all(pair.origin.content == content_id(pair.caption) for pair in ALL)
    assert all(image_extension(pair.image) == "webp" for pair in ALL)


def test_every_drawing_names_its_licence() -> None:
    licences = {(p.origin.details["vendor"], p.origin.details["licence"]) for p in ALL}
    assert licences == {("noto", "Apache-2.0"), ("twemoji", "CC-BY-4.0")}


def test_splits_categories_and_vendors_are_chosen_together() -> None:
    splits = Counter(len(pairs(split=split)) for split in ("train", "val"))
    assert splits == {1562: 1, 80: 1}
    food = pairs(categories=["Food & Drink"], vendors=["noto"], split="train")
    assert food == [
        pair
        for pair in ALL
        if pair.origin.details["category"] == "Food & Drink"
        and pair.origin.details["vendor"] == "noto"
        and pair.origin.details["split"] == "train"
    ]
    assert len(food) > 50


def test_a_limit_draws_whole_concepts_with_the_seed() -> None:
    drawn = pairs(limit=10)
    assert Counter(Counter(pair.origin.content for pair in drawn).values()) == {2: 5}
    assert pairs(limit=10) == drawn
    assert [pair for pair in ALL if pair in drawn] == drawn  # in shard order
    other = {pair.origin.content for pair in pairs(seed=1, limit=10)}
    assert other != {pair.origin.content for pair in drawn}
    assert {pair.key for pair in drawn} < {pair.key for pair in pairs(limit=12)}
    assert len(pairs(limit=3)) == 3
    assert pairs(limit=5000) == ALL


def test_what_the_drawings_do_not_have_is_named_with_what_they_have() -> None:
    with pytest.raises(RecipeError, match="the embedded corpus has no vendor 'nato'") as caught:
        pairs(vendors=["nato"])
    assert caught.value.hint == "there are: noto, twemoji"
    with pytest.raises(RecipeError, match="the embedded corpus has no category 'Food'") as caught:
        pairs(categories=["Food & Drink", "Food"])
    assert "Food & Drink" in (caught.value.hint or "")


def test_a_package_without_its_corpus_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mini, "CORPUS", tmp_path)
    with pytest.raises(SourceError, match="expected the embedded corpus, found nothing"):
        pairs()
