"""Duplicates: the same bytes, and images that look the same."""

from __future__ import annotations

from typing import Any

from builders.candidate_rows import Candidate
from builders.filter_candidates import GREY, NEAR, raw, reasons, stylized

EXACT: dict[str, Any] = {"exact": True, "phash_distance": None}


def test_the_same_bytes_stay_once() -> None:
    pairs = [raw("a", image_sha256="s"), raw("b", image_sha256="s"), raw("c", image_sha256="s")]
    pairs.append(raw("d"))
    assert reasons(pairs, duplicates=EXACT) == {
        "a": None, "b": "duplicate", "c": "duplicate", "d": None,
    }  # fmt: skip
    assert [pair.duplicate_of for pair in pairs] == [None, "a", "a", None]


def test_pairs_without_an_image_are_no_duplicates() -> None:
    pairs = [raw("a", image_sha256=None), raw("b", image_sha256=None)]
    assert reasons(pairs, duplicates=EXACT) == {"a": None, "b": None}


def test_captions_of_one_image_are_no_duplicates_but_the_same_caption_is() -> None:
    one: dict[str, Any] = {"source": "folder:one.png", "image_sha256": "s"}
    pairs = [
        raw("a", content="a dog", **one),
        raw("b", content="an animal", **one),
        raw("c", content="an animal", **one),  # the second caption again
        raw("d", content="a cat", source="folder:other.png", image_sha256="s"),
    ]
    assert reasons(pairs, duplicates=EXACT) == {
        "a": None, "b": None, "c": "duplicate", "d": "duplicate",
    }  # fmt: skip
    assert [pair.duplicate_of for pair in pairs] == [None, None, "b", "a"]
    for pair in pairs:
        pair.kept, pair.reason, pair.phash, pair.colour = True, None, "0" * 16, GREY
    assert reasons(pairs, duplicates=NEAR) == {
        "a": None, "b": None, "c": "near-duplicate", "d": "near-duplicate",
    }  # fmt: skip


def test_bytes_are_compared_within_raw_and_within_each_reference_only() -> None:
    same = {"image_sha256": "s", "phash": "0" * 16, "colour": GREY}
    for rule, reason in ((EXACT, "duplicate"), (NEAR, "near-duplicate")):
        pairs = [
            raw("r", **same),
            stylized("m", **same),
            stylized("n", reference="neon", **same),
            stylized("o", reference="neon", **same),
        ]
        assert reasons(pairs, duplicates=rule) == {"r": None, "m": None, "n": None, "o": reason}
        assert [pair.duplicate_of for pair in pairs] == [None, None, None, "n"]


def hashed(key: str, bits: int, colour: str = GREY) -> Candidate:
    return raw(key, phash=f"{bits:016x}", colour=colour)


def test_near_duplicates_are_within_the_distance() -> None:
    pairs = [hashed("a", 0), hashed("b", 0b1111), hashed("c", 0b11111), hashed("d", 1 << 63)]
    assert reasons(pairs, duplicates=NEAR) == {
        "a": None, "b": "near-duplicate", "c": None, "d": "near-duplicate",
    }  # fmt: skip
    exact = {"exact": False, "phash_distance": 0}
    pairs = [hashed("a", 5), hashed("b", 5), hashed("c", 4)]
    assert reasons(pairs, duplicates=exact) == {"a": None, "b": "near-duplicate", "c": None}


def test_near_duplicates_have_like_colours() -> None:
    red, like, apart = "c81e1e" * 4, "c81e1e" * 3 + "b81e1e", "c81e1e" * 3 + "b71e1e"
    pairs = [hashed("a", 0, red), hashed("b", 0, apart), hashed("c", 0, like)]
    assert reasons(pairs, duplicates=NEAR) == {"a": None, "b": None, "c": "near-duplicate"}
    assert (
        pairs[2].duplicate_of == "a"
    )  # 16 levels from a, 1 from b: the earlier one keeps its place


def test_a_near_duplicate_takes_no_other_with_it() -> None:
    chain = [hashed("a", 0), hashed("b", 0b1111), hashed("c", 0b11111111)]
    assert reasons(chain, duplicates=NEAR) == {"a": None, "b": "near-duplicate", "c": None}


def test_pairs_without_a_hash_are_no_near_duplicates() -> None:
    assert reasons([raw("a"), raw("b")], duplicates=NEAR) == {"a": None, "b": None}
