"""A loss or gradients that are not finite stop a run before the step, and name the pairs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from builders.tiny_training import read_losses, sft_settings, write_training_inputs

from stylear.curate.corpus.shards import read_samples, shard_paths
from stylear.errors import TrainingError
from stylear.train import sft_trainer as sft


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_inputs(tmp_path_factory.mktemp("finite"))


def test_an_infinite_loss_stops_before_its_step_and_names_its_part(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    compute = sft.image_code_loss

    def explode(logits: torch.Tensor, codes: torch.Tensor, z_loss: float) -> torch.Tensor:
        calls.append(len(codes))
        return compute(logits, codes, z_loss) * (float("inf") if len(calls) == 6 else 1.0)

    monkeypatch.setattr(sft, "image_code_loss", explode)
    stepped = []
    step = sft.Optimisers.step
    monkeypatch.setattr(
        sft.Optimisers, "step", lambda self, number: stepped.append(number) or step(self, number)
    )
    with pytest.raises(TrainingError, match=r"step 3: .* a loss that is infinite") as raised:
        sft.run(sft_settings(place, "loss", accumulate=2, validate_every=100))
    assert stepped == [0, 1]
    keys = {sample["key"] for sample in read_samples(shard_paths(place / "corpus" / "train"))}
    named = re.findall(r"[0-9a-f]{16,}", raised.value.message)
    assert len(named) == 2  # of the second part of four pairs
    assert set(named) < keys


def test_gradients_that_are_not_numbers_name_the_whole_batch(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = sft.Optimisers.clip_gradients

    def spoil(self: sft.Optimisers) -> float:
        self.parameters[0].grad = torch.full_like(self.parameters[0], float("nan"))
        return clip(self)

    monkeypatch.setattr(sft.Optimisers, "clip_gradients", spoil)
    with pytest.raises(TrainingError, match=r"step 1: .* gradients that are infinite") as raised:
        sft.run(sft_settings(place, "gradients", accumulate=2))
    assert len(re.findall(r"[0-9a-f]{16,}", raised.value.message)) == 4
    assert not (place / "gradients" / "checkpoints").exists()
    assert not (place / "gradients" / "metrics.jsonl").read_text()


def test_training_goes_on_where_numbers_are_finite(place: Path) -> None:
    assert len(read_losses(sft.run(sft_settings(place, "finite", steps=2)))) == 2
