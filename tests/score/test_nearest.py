"""Nearest neighbours: exact, and only among images that are neighbours."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stylear.curate.corpus.parquet import read_table, write_table
from stylear.curate.corpus.shards import write_shard
from stylear.curate.references import StyleReference
from stylear.curate.score import nearest as module
from stylear.curate.score.nearest import find_nearest_cosines, read_embedding_table
from stylear.curate.score.nearest_step import KindShards, compare_pools, read_pools
from stylear.pair import Origin, Pair


def unit(count: int, size: int = 16, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float16]]:
    vectors = np.random.default_rng(seed).normal(size=(count, size))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def by_hand(vectors: Any, alike: Any) -> list[float]:
    """The same with a whole matrix of cosines."""
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    cosines = wide @ wide.T
    cosines[alike[:, None] == alike] = -9
    return [float(value) for value in cosines.max(axis=1)]


@pytest.mark.parametrize("groups", [300, 100, 7])
def test_the_search_is_exact(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, alike = unit(300), np.arange(300) % groups
    expected = by_hand(vectors, alike)
    assert find_nearest_cosines(vectors, alike) == pytest.approx(expected, abs=1e-6)
    monkeypatch.setattr(module, "BLOCK", 7)
    seen: list[int] = []
    assert find_nearest_cosines(vectors, alike, seen.append) == pytest.approx(expected, abs=1e-6)
    assert sum(seen) == 300


def test_equal_images_have_a_cosine_of_one_in_spite_of_half_precision() -> None:
    vectors = np.concatenate([unit(20, 512), unit(20, 512)])
    assert find_nearest_cosines(vectors, np.arange(40)) == pytest.approx([1.0] * 40, abs=1e-6)


def test_an_image_with_many_equals_finds_its_neighbour_behind_them() -> None:
    """Twenty candidates of one job, all the same picture, and one other image."""
    vectors = np.concatenate([np.repeat(unit(1), 20, axis=0), unit(1, seed=1)])
    alike = np.array([5] * 20 + [6])
    [expected] = {round(value, 6) for value in by_hand(vectors, alike)}
    assert find_nearest_cosines(vectors, alike) == pytest.approx([expected] * 21, abs=1e-6)


def test_what_has_no_neighbour_is_none_and_what_is_no_number_is_reported() -> None:
    assert find_nearest_cosines(unit(1), np.array([0])) == [None]
    assert find_nearest_cosines(unit(3), np.array([0, 0, 0])) == [None] * 3
    assert find_nearest_cosines(unit(0), np.zeros(0, np.int64)) == []
    vectors = unit(4)
    vectors[2, 3] = np.nan
    cosines = find_nearest_cosines(vectors, np.arange(4))
    assert math.isnan(cosines[2] or 0.0)
    expected = find_nearest_cosines(vectors[[0, 1, 3]], np.arange(3))
    assert [cosines[i] for i in (0, 1, 3)] == expected


def test_embeddings_survive_the_file_and_gaps_do(tmp_path: Path) -> None:
    vectors = unit(3)
    flat = pa.array(np.concatenate([vectors, vectors[:1]]).ravel(), pa.float16())
    missing = pa.array([False, False, False, True])
    column = pa.FixedSizeListArray.from_arrays(flat, 16, mask=missing)
    write_table(tmp_path / "a.parquet", pa.table({"embedding": column}))
    read_back, is_present = read_embedding_table(read_table(tmp_path / "a.parquet"))
    assert np.array_equal(read_back, vectors)
    assert is_present.tolist() == [True, True, True, False]


def reference(name: str) -> StyleReference:
    return StyleReference(name, b"", "0" * 64, Path(f"{name}.png"), False)


def shard(folder: Path, pairs: list[Pair]) -> list[Any]:
    write_shard(folder, 0, pairs)
    return [SimpleNamespace(unit="00000")]


def test_stylized_pairs_are_compared_within_their_style(tmp_path: Path) -> None:
    jobs = [("x", "dots--1"), ("x", "dots--1"), ("x", "dots--2"), ("y", "dots--1"), ("x", "lines")]
    pairs = [
        Pair(f"k{n}", "", b"", Origin("stylized", "synthesizer:x", content, reference=name))
        for n, (content, name) in enumerate(jobs)
    ]
    entries = shard(tmp_path / "stylized", pairs)
    references = [reference(name) for name in ("dots--1", "dots--2", "lines")]
    pools, alike = read_pools(tmp_path, KindShards("stylized", entries, None), references)  # type: ignore[arg-type]
    assert pools.tolist() == [0, 0, 0, 0, 1]
    assert alike.tolist() == [0, 0, 2, 3, 4]
    vectors = unit(5)
    cosines = compare_pools(vectors, np.ones(5, bool), pools, alike, "near")
    expected = by_hand(vectors[:4], alike[:4])
    assert cosines[:4] == pytest.approx(expected, abs=1e-6)
    assert cosines[4] is None  # alone in its style
    is_present = np.array([True, False, True, True, True])
    cosines = compare_pools(vectors[is_present], is_present, pools, alike, "near")
    assert cosines[1] is None
    assert cosines[2] == pytest.approx(by_hand(vectors[[0, 2, 3]], alike[[0, 2, 3]])[1], abs=1e-6)


def test_captions_of_one_picture_are_no_neighbours(tmp_path: Path) -> None:
    pairs = [
        Pair(f"k{n}", "", b"", Origin("raw", source, f"content {n}"))
        for n, source in enumerate(["folder:a.png", "folder:a.png", "folder:b.png"])
    ]
    entries = shard(tmp_path / "raw", pairs)
    pools, alike = read_pools(tmp_path, KindShards("raw", entries, None), [])  # type: ignore[arg-type]
    assert (pools.tolist(), alike.tolist()) == ([-1, -1, -1], [0, 0, 2])
