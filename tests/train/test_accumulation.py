"""However a batch is divided, over parts or over processes, the step is that of the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders.ranks import run_ranks
from builders.tiny_training import (
    read_losses,
    read_weights,
    sft_settings,
    write_training_inputs,
)
from torch import nn

from stylear.errors import UsageError
from stylear.train import grpo_trainer
from stylear.train import sft_trainer as sft
from stylear.train.distributed import fill_buckets, join_ranks
from stylear.train.settings import GrpoSettings

pytestmark = pytest.mark.cpu  # equal bits, and processes that are forked


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    root = write_training_inputs(tmp_path_factory.mktemp("accumulation"))
    sft.run(sft_settings(root, "whole", batch_size=6, sigma=0.3))
    sft.run(sft_settings(root, "halves", batch_size=6, sigma=0.3, accumulate=2))
    return root


def test_accumulated_parts_give_the_step_of_the_whole_batch(place: Path) -> None:
    parts = sft.run(sft_settings(place, "parts", batch_size=6, sigma=0.3, accumulate=4))
    expected, found = read_weights(place / "whole" / "final"), read_weights(parts)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=2e-3, rtol=0)
    whole, divided = read_losses(place / "whole" / "final"), read_losses(parts)
    assert [line["loss"] for line in divided] == pytest.approx(
        [line["loss"] for line in whole], abs=1e-4
    )


@pytest.mark.parametrize("more", [{}, {"shard_base": True, "checkpoint_blocks": 2}])
def test_two_processes_equal_one_with_two_parts_bit_for_bit(
    place: Path, more: dict[str, object]
) -> None:
    name = "-".join(["two", *more])
    two = sft_settings(place, name, batch_size=6, sigma=0.3, **more)
    assert run_ranks(lambda: sft.run(two)) == [0, 0]
    expected, found = (read_weights(place / run / "final") for run in ("halves", name))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert read_losses(place / name / "final") == read_losses(place / "halves" / "final")


def test_a_base_is_sharded_over_several_processes_of_lora(place: Path) -> None:
    with pytest.raises(UsageError, match="expected LoRA on several processes, found one process"):
        sft.run(sft_settings(place, "alone", shard_base=True))
    with pytest.raises(UsageError, match="found full training"):
        sft.run(sft_settings(place, "full", shard_base=True, full=True))


def test_a_run_of_one_process_is_resumed_by_two(place: Path) -> None:
    first = sft_settings(place, "more-ranks", batch_size=6, sigma=0.3, steps=3)
    sft.run(first)
    assert run_ranks(lambda: sft.run(first.model_copy(update={"steps": 6}))) == [0, 0]
    expected = read_weights(place / "whole" / "final")
    found = read_weights(place / "more-ranks" / "final")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=2e-3, rtol=0)


def test_a_batch_has_a_pair_for_each_part(place: Path) -> None:
    with pytest.raises(UsageError, match="batch_size: expected at least 8, one pair for each of 1"):
        sft.run(sft_settings(place, "thin", batch_size=4, accumulate=8))


def test_sums_over_ranks_are_those_of_all_of_them(tmp_path: Path) -> None:
    def work() -> None:
        with join_ranks("cpu") as ranks:
            used, unused = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
            used.grad = torch.tensor([1.0, 2.0]) * (ranks.rank + 1)
            ranks.sum_gradients([used, unused])
            assert used.grad.tolist() == [3.0, 6.0]
            assert unused.grad is not None
            assert unused.grad.tolist() == [0.0]
            assert ranks.sum([1.0, ranks.rank]) == [2.0, 1.0]
            assert ranks.gather(f"rank {ranks.rank}") == ["rank 0", "rank 1"]
            with ranks.first_goes_first():
                marker = tmp_path / "first"
                assert marker.exists() is not ranks.is_first
                marker.touch()

    assert run_ranks(work) == [0, 0]


def test_rewards_are_learnt_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    values = {"corpus": ["c"], "model": "m", "out": tmp_path}
    with pytest.raises(UsageError, match="train grpo: expected one process, found 2"):
        grpo_trainer.run(GrpoSettings.model_validate(values))


def test_buckets_hold_neighbours_of_one_dtype_up_to_their_size() -> None:
    small, large = torch.zeros(2), torch.zeros(100)
    halves = torch.zeros(2, dtype=torch.bfloat16)
    buckets = list(fill_buckets([small, small, large, small, halves], 64))
    assert [[tensor.numel() for tensor in bucket] for bucket in buckets] == [
        [2, 2],
        [100],
        [2],
        [2],
    ]


def test_a_gpu_of_its_own_is_needed_by_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("stylear.train.distributed.pick_device", lambda name: name)
    with pytest.raises(UsageError, match="expected a GPU for local rank 1, found 1"):
        join_ranks("cuda").__enter__()
    with pytest.raises(UsageError, match="expected auto, cuda or cpu for 2 processes"):
        join_ranks("cuda:0").__enter__()
