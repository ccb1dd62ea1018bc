"""Splits: no content, style reference or picture is in both train and val."""

from __future__ import annotations

import numpy as np
import pytest
from builders.mixed_corpus import (
    assigned,
    mix_recipe,
    names_in,
    raw_candidate,
    stylized_candidate,
)

from stylear.curate.corpus.columns import connected_components
from stylear.curate.corpus.split import assign_split

TRAIN, TRAIN_2 = names_in("train", "content", 2)
VAL, VAL_2 = names_in("val", "content", 2)
STYLE, VAL_STYLE = names_in("train", "reference", 1)[0], names_in("val", "reference", 1)[0]


def test_contents_and_references_are_where_their_hash_puts_them() -> None:
    pairs = [
        raw_candidate("a", TRAIN),
        raw_candidate("b", VAL),
        stylized_candidate("c", TRAIN, STYLE),
    ]
    pairs.append(stylized_candidate("d", VAL, VAL_STYLE))
    assert assigned(pairs, mix_recipe()) == {"a": "train", "b": "val", "c": "train", "d": "val"}


def test_a_content_in_a_style_of_the_other_split_is_left_out() -> None:
    pairs = [
        raw_candidate("a", TRAIN),
        stylized_candidate("b", TRAIN, VAL_STYLE),
        stylized_candidate("c", VAL, STYLE),
    ]
    assert assigned(pairs, mix_recipe()) == {"a": "train", "b": "split", "c": "split"}


def test_without_validation_everything_is_in_train() -> None:
    pairs = [
        raw_candidate("a", TRAIN),
        raw_candidate("b", VAL),
        stylized_candidate("c", VAL, STYLE),
    ]
    assignments = assigned(pairs, mix_recipe(val_fraction=0))
    assert assignments == {"a": "train", "b": "train", "c": "train"}


@pytest.mark.parametrize("same", ["image_sha256", "source_sha256"])
def test_one_picture_under_two_contents_stays_in_train_alone(same: str) -> None:
    pairs = [
        raw_candidate("v", VAL, **{same: "x"}),
        raw_candidate("t", TRAIN, **{same: "x"}),
        raw_candidate("w", VAL_2),
    ]
    assert assigned(pairs, mix_recipe()) == {"v": "split", "t": "train", "w": "val"}


def test_a_near_duplicate_that_the_filter_dropped_still_counts() -> None:
    """Its content is in train through another picture, so the twin must not be in val."""
    twin = raw_candidate(
        "t", TRAIN, duplicate_of="v", kept=False, stage="filter", reason="near-duplicate"
    )
    pairs = [raw_candidate("v", VAL), twin, raw_candidate("u", TRAIN)]
    assert assigned(pairs, mix_recipe()) == {"v": "split", "u": "train"}


def test_children_and_other_pictures_of_a_crossing_content_are_left_out_too() -> None:
    pairs = [
        raw_candidate("v", VAL, image_sha256="x"),
        raw_candidate("t", TRAIN, image_sha256="x"),
        raw_candidate("other", VAL),  # the same content in another hand
        stylized_candidate("child", VAL, VAL_STYLE, parent="v"),
    ]
    assert assigned(pairs, mix_recipe()) == {
        "v": "split", "t": "train", "other": "split", "child": "split",
    }  # fmt: skip


def test_a_chain_of_duplicates_is_one_picture() -> None:
    pairs = [
        raw_candidate("a", VAL, image_sha256="x"),
        raw_candidate("b", VAL_2, image_sha256="x", source_sha256="y"),
        raw_candidate("c", TRAIN, source_sha256="y"),
    ]
    assert assigned(pairs, mix_recipe()) == {"a": "split", "b": "split", "c": "train"}


def test_duplicates_inside_one_split_cross_nothing() -> None:
    pairs = [raw_candidate("a", VAL, image_sha256="x"), raw_candidate("b", VAL_2, image_sha256="x")]
    assert assigned(pairs, mix_recipe()) == {"a": "val", "b": "val"}


def test_stylized_pictures_of_the_same_bytes_are_not_an_identity() -> None:
    """Their contents and references are; a flat style may draw two contents alike."""
    pairs = [stylized_candidate("a", VAL, VAL_STYLE), stylized_candidate("b", TRAIN, STYLE)]
    for pair in pairs:
        pair.image_sha256 = "x"
    assert assigned(pairs, mix_recipe()) == {"a": "val", "b": "train"}


def test_identities_join_through_others() -> None:
    edges = np.array([[0, 1], [2, 3], [1, 2], [4, 4]])
    assert connected_components(6, edges[:, 0], edges[:, 1]).tolist() == [0, 0, 0, 0, 4, 5]


def test_splits_are_a_share_of_the_identities() -> None:
    names = [f"name {number}" for number in range(2000)]
    assert sum(assign_split(name, 0, 0.25) == "val" for name in names) == 482
    assert {assign_split(name, 0, 0.0) for name in names} == {"train"}
    moved = sum(assign_split(n, 0, 0.25) != assign_split(n, 1, 0.25) for n in names)
    assert moved == 726
    more = [
        n for n in names if assign_split(n, 0, 0.25) == "val" and assign_split(n, 0, 0.4) != "val"
    ]
    assert more == []  # a larger share only adds
