"""The order of examples: every row once an epoch, by seed and step alone."""

from __future__ import annotations

import numpy as np
import pytest

from stylear.train.sampler import Sampler, permute


def draw_all(sampler: Sampler, seed: int, steps: int, batch_size: int) -> list[list[int]]:
    return [sampler.draw(seed, step, batch_size).tolist() for step in range(steps)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 4097])
def test_permute_visits_every_position_once(size: int) -> None:
    assert sorted(permute(np.arange(size), size, (3, 1)).tolist()) == list(range(size))


def test_permutations_differ_by_key_and_have_no_order() -> None:
    first, second = (permute(np.arange(1000), 1000, (0, epoch)) for epoch in (0, 1))
    assert (first == second).sum() < 10
    assert abs(np.corrcoef(first, np.arange(1000))[0, 1]) < 0.1
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.1


def test_permute_needs_only_the_positions_that_are_asked_for() -> None:
    some = np.array([5, 999_999_999_999])
    images = permute(some, 10**12, (0,))
    assert images.tolist() == permute(some, 10**12, (0,)).tolist()
    assert (images < 10**12).all()


def test_an_epoch_visits_every_row_once_even_across_a_batch() -> None:
    rows = [row for batch in draw_all(Sampler([[10]]), 7, 10, 3) for row in batch]
    for epoch in range(3):
        assert sorted(rows[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert rows[:10] != rows[10:20]


def test_a_batch_holds_rows_of_one_bucket_and_an_epoch_all_buckets() -> None:
    sampler = Sampler([[8], [4], [12]])
    batches = draw_all(sampler, 1, 12, 4)
    for epoch in (batches[:6], batches[6:]):
        assert sorted(row for batch in epoch for row in batch) == list(range(24))
    buckets = [{np.searchsorted([8, 12, 24], row, side="right") for row in b} for b in batches]
    assert all(len(bucket) == 1 for bucket in buckets)


def test_a_bucket_with_an_unfilled_batch_goes_on_with_its_next_epoch() -> None:
    sampler = Sampler([[5], [3]])
    rows = [row for batch in draw_all(sampler, 0, 40, 4) for row in batch]
    first = [row for row in rows if row < 5]
    second = [row for row in rows if row >= 5]
    for epoch in range(8):
        assert sorted(first[5 * epoch : 5 * epoch + 5]) == list(range(5))
        assert sorted(second[3 * epoch : 3 * epoch + 3]) == [5, 6, 7]


def test_a_step_can_be_drawn_alone() -> None:
    sampler = Sampler([[5, 9], [30, 1]], weights=(1, 2))
    batches = draw_all(sampler, 4, 30, 4)
    again = Sampler([[5, 9], [30, 1]], weights=(1, 2))
    assert [again.draw(4, step, 4).tolist() for step in (29, 7, 18)] == [
        batches[step] for step in (29, 7, 18)
    ]
    assert draw_all(sampler, 5, 30, 4) != batches


def test_weights_set_the_share_of_each_corpus_and_repeat_its_rows_evenly() -> None:
    sampler = Sampler([[6, 18]], weights=(1, 1))
    rows = [row for batch in draw_all(sampler, 0, 24, 4) for row in batch]  # four epochs of 24
    counts = np.bincount(rows, minlength=24)
    assert counts[:6].tolist() == [8] * 6
    assert counts[6:].sum() == 48
    assert set(counts[6:].tolist()) <= {2, 3}


def test_a_small_corpus_gives_whole_batches() -> None:
    assert sorted(Sampler([[3]]).draw(0, 0, 6).tolist()) == [0, 0, 1, 1, 2, 2]
