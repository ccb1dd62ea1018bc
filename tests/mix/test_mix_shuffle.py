"""Shuffling: the same bytes from any number of workers, another order from another seed."""

from __future__ import annotations

import itertools
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from builders.mixed_corpus import (
    mix_again,
    mix_recipe,
    mixed_files,
)

from stylear.curate.corpus.pair_reader import SampleLocations
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.engine import LOCAL, Engine
from stylear.curate.mix import shuffle
from stylear.curate.mix.mixing import mix_corpus
from stylear.curate.mix.shuffle import count_workers


def test_mixing_again_gives_the_same_bytes_and_another_seed_another_order(
    written: Path, tmp_path: Path
) -> None:
    assert mix_again(written, tmp_path / "same", mix_recipe()) == mixed_files(written)
    # the ratio takes every raw pair here, so only the order can differ
    everything = mix_recipe(raw_per_stylized=100, val_fraction=0)
    order = everything.model_copy(update={"seed": 1})
    mix_again(written, tmp_path / "other", everything)
    before = [pair.key for pair in iter_pairs(tmp_path / "other" / "train")]
    mix_corpus(tmp_path / "other", order)
    after = [pair.key for pair in iter_pairs(tmp_path / "other" / "train")]
    assert sorted(before) == sorted(after)
    assert len(before) == 46
    assert before != after
    assert before != sorted(before)


def test_raw_and_stylized_pairs_are_shuffled_together(written: Path) -> None:
    kinds = [pair.origin.kind for pair in iter_pairs(written / "train")]
    changes = sum(a != b for a, b in itertools.pairwise(kinds))
    assert changes > 2  # in blocks it would be 1


def test_the_number_of_workers_changes_no_byte(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shuffle, "WORKER_BYTES", 1)
    alone = mix_again(written, tmp_path / "one", mix_recipe(), workers=1)
    assert len(alone) == 13
    assert (
        mix_again(written, tmp_path / "two", mix_recipe(), workers=2)
        == alone
        == mixed_files(written)
    )
    assert multiprocessing.active_children() == []


def test_workers_are_started_where_there_is_enough_to_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crew(gigabytes: float, workers: int = 0, engine: Engine = LOCAL) -> int:
        none = np.zeros(4, np.int32)
        sizes = np.full(4, gigabytes * 2**28, np.int32)
        samples = SampleLocations([], none, none.astype(np.int64), sizes, np.zeros(4, "S16"))
        return count_workers({tmp_path / "train": samples}, engine, workers)

    monkeypatch.setattr(shuffle, "cores", lambda: 8)
    assert [crew(gigabytes) for gigabytes in (0, 0.9, 1, 2.5, 7)] == [1, 1, 2, 3, 4]
    assert [crew(7, workers) for workers in (1, 3, 8)] == [1, 3, 8]
    assert [crew(0, workers, Engine("ray")) for workers in (0, 3)] == [0, 3]
