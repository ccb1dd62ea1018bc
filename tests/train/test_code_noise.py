"""Wrong codes in the input of a batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from stylear.model.open import load_model
from stylear.train.code_noise import add_code_noise
from stylear.train.data import EncodedSet, TrainingBatch, open_encoded


@pytest.fixture(scope="module")
def data(place: Path) -> EncodedSet:
    return open_encoded(
        load_model(place / "model", "cpu"), [place / "corpus"], "train", place / "encoded"
    )


def input_codes(part: TrainingBatch) -> Tensor:
    """The ids where the codes stand, (B, N)."""
    batch = part.batch
    return batch.ids[batch.code_rows, batch.code_columns].view(len(part.rows), -1)


def noisy(data: EncodedSet, part: TrainingBatch, highest: float, step: int = 0) -> TrainingBatch:
    return add_code_noise(part, data.model.layout, highest, seed=1, step=step)


def test_some_codes_of_the_input_are_others_of_their_picture_and_nothing_else_changes(
    data: EncodedSet,
) -> None:
    part = data.build_step_batch(0, 0, 8)
    changed = noisy(data, part, 1.0)
    before, after = input_codes(part), input_codes(changed)
    shares = (before != after).float().mean(1)
    assert shares.max() > 0.3
    assert len(shares.unique()) > 3
    assert all(
        set(row.tolist()) <= set(own.tolist()) for row, own in zip(after, before, strict=True)
    )
    rest = torch.ones_like(part.batch.ids, dtype=torch.bool)
    rest[part.batch.code_rows, part.batch.code_columns] = False
    assert torch.equal(changed.batch.ids[rest], part.batch.ids[rest])
    assert torch.equal(changed.batch.codes, part.batch.codes)
    assert torch.equal(noisy(data, part, 0.0).batch.ids, part.batch.ids)


def test_a_row_has_the_same_noise_in_any_division_of_the_batch(data: EncodedSet) -> None:
    whole = input_codes(noisy(data, data.build_step_batch(0, 3, 6), 0.5, step=3))
    halves = [
        input_codes(
            noisy(data, data.build_step_batch(0, 3, 6, rank=rank, world_size=2), 0.5, step=3)
        )
        for rank in range(2)
    ]
    assert torch.equal(torch.cat(halves), whole)
    assert not torch.equal(
        input_codes(noisy(data, data.build_step_batch(0, 3, 6), 0.5, step=4)), whole
    )
