"""Columns: texts as identities, places of equal rows, lookups, connected places."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa

from stylear.curate.corpus.columns import (
    NONE,
    SLICE,
    DictionaryColumn,
    TextIndex,
    bool_mask,
    concatenate,
    connected_components,
    dictionary_codes,
    first_occurrence,
    hash_identities,
    rank_values,
    rank_within_group,
    to_bytes,
    valid_mask,
)


def test_identities_are_equal_when_the_texts_are() -> None:
    column = pa.array(["a", None, "b", "a", "", "物"], pa.string())
    identities = hash_identities(column)
    assert identities.dtype == "S16"
    assert (identities == NONE).tolist() == [False, True, False, False, False, False]
    assert rank_values(identities)[0] == rank_values(identities)[3]
    assert len(np.unique(identities)) == 5


def test_texts_sort_as_they_are_and_none_is_empty() -> None:
    words = ["b", None, "aa", "物", "a"]
    texts = to_bytes(pa.array(words, pa.string()))
    assert [text.decode() for text in np.sort(texts)] == ["", "a", "aa", "b", "物"]
    many = [f"{number:x}" for number in range(2 * SLICE + 3)]
    assert [text.decode() for text in to_bytes(pa.array(many))] == many
    assert len(to_bytes(pa.array([], pa.string()))) == 0


def test_first_of_is_the_place_of_the_first_equal_row() -> None:
    a, b = np.array([1, 2, 1, 1, 2]), np.array([b"x", b"x", b"y", b"x", b"x"])
    assert first_occurrence(a, b).tolist() == [0, 1, 2, 0, 1]
    assert first_occurrence(a).tolist() == [0, 1, 0, 0, 1]
    assert first_occurrence(np.zeros(0, np.int64)).tolist() == []


def test_an_index_finds_the_first_place_of_each_text() -> None:
    index = TextIndex(np.array([b"c", b"a", b"c", b"b"]))
    assert index.find(np.array([b"a", b"c", b"d", b"", b"cc"])).tolist() == [1, 0, -1, -1, -1]
    assert index.find_repeated().tolist() == [2]
    assert TextIndex(np.zeros(0, "S1")).find(np.array([b"a"])).tolist() == [-1]


def test_words_are_set_counted_and_written_back() -> None:
    words = DictionaryColumn(pa.array(["a", None, "b", "a"], pa.string()))
    words.set(np.array([True, False, False, False]), "new")
    words.set(np.array([1]), "b")
    assert words.array().to_pylist() == ["new", "b", "b", "a"]
    assert words.counts() == {"a": 1, "b": 2, "new": 1}
    assert words.text_at(1) == "b"
    assert words.array().type == pa.string()


def test_components_are_those_of_a_plain_search() -> None:
    draw = random.Random(0)
    for size, count in ((50, 20), (200, 120), (200, 400)):
        edges = np.array([[draw.randrange(size) for _ in range(2)] for _ in range(count)])
        near: dict[int, set[int]] = {n: set() for n in range(size)}
        for a, b in edges.tolist():
            near[a].add(b)
            near[b].add(a)
        lowest = {}
        for start in range(size):
            todo = [] if start in lowest else [start]
            while todo:
                node = todo.pop()
                if node not in lowest:
                    lowest[node] = start
                    todo += near[node]
        components = connected_components(size, edges[:, 0], edges[:, 1])
        assert components.tolist() == [lowest[n] for n in range(size)]
    assert connected_components(3, np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == [
        0,
        1,
        2,
    ]


def test_a_long_chain_is_one_component() -> None:
    order = np.random.default_rng(0).permutation(5000)
    assert set(connected_components(5000, order[:-1], order[1:]).tolist()) == {0}


def test_small_columns_are_joined() -> None:
    parts = [
        {"a": np.array([1]), "b": pa.array(["x"])},
        {"a": np.array([2, 3]), "b": pa.array([None, "z"], pa.string())},
    ]
    joined = concatenate(parts)
    assert joined["a"].tolist() == [1, 2, 3]
    assert joined["b"].to_pylist() == ["x", None, "z"]


def test_bits_of_arrow_columns_are_read_as_arrow_reads_them() -> None:
    draw = random.Random(3)
    flags = pa.array([draw.random() < 0.5 for _ in range(100)])
    gaps = pa.array([draw.choice([None, draw.randrange(9)]) for _ in range(100)], pa.int32())
    words = pa.array([draw.choice([None, "a", "b"]) for _ in range(100)], pa.string())
    for start, count in ((0, 100), (3, 50), (8, 92), (100, 0)):
        some = gaps.slice(start, count)
        assert (
            bool_mask(flags.slice(start, count)).tolist() == flags.slice(start, count).to_pylist()
        )
        assert valid_mask(some).tolist() == some.is_valid().to_pylist()
        assert dictionary_codes(some).tolist() == some.fill_null(-1).to_pylist()
        named = words.slice(start, count).dictionary_encode()
        bits = [
            None if code < 0 else named.dictionary[code].as_py()
            for code in dictionary_codes(named).tolist()
        ]
        assert bits == words.slice(start, count).to_pylist()
    assert valid_mask(pa.array([1, 2])).tolist() == [True, True]
    assert dictionary_codes(pa.nulls(2, pa.string()).dictionary_encode()).tolist() == [-1, -1]


def test_each_row_stands_somewhere_among_its_equals() -> None:
    """By one column of small numbers, which is sorted another way, and by several."""
    order = np.array([5, 1, 4, 0, 2, 3], np.int32)
    group = np.array([7, 7, 9, 9, 7, -1], np.int32)
    expected = ([1, 1, 3, 3, 1, 5], [2, 0, 1, 0, 1, 0])
    for columns in ((group,), (group.astype(np.int64),), (group, np.zeros(6, np.int32))):
        first, position = rank_within_group(order, *columns)
        assert (first.tolist(), position.tolist()) == expected
    first, position = rank_within_group(None, group)
    assert (first.tolist(), position.tolist()) == ([0, 0, 2, 2, 0, 5], [0, 1, 0, 1, 2, 0])
    first, position = rank_within_group(np.zeros(0, np.int32), np.zeros(0, np.int32))
    assert (len(first), len(position)) == (0, 0)
