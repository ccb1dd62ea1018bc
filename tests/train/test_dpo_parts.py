"""However a batch of preference pairs is divided, the step of DPO is that of the whole batch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.ranks import run_ranks
from safetensors.torch import load_file

from stylear.errors import TrainingError, UsageError
from stylear.train import dpo_trainer as dpo
from stylear.train.metrics import TIMINGS, Metrics, read_metrics
from stylear.train.preferences import read_preferences
from stylear.train.settings import DpoSettings

# equal bits, and processes that are forked
pytestmark = [pytest.mark.cpu, pytest.mark.usefixtures("one_thread")]


def settings(place: Path, out: str, **more: object) -> DpoSettings:
    values = {
        "corpus": [place / "corpus"],
        "model": str(place / "model"),
        "out": place / out,
        "encoded": place / "encoded",
        "steps": 2,
        "batch_size": 4,
        "lr": 1e-3,
        **more,
    }
    return DpoSettings.model_validate(values)


def read_run(final: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """The trained weights, and the metrics without how long they took."""
    lines = read_metrics(final.parent / "metrics.jsonl")
    kept = [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines]
    return load_file(final / "adapter_model.safetensors"), kept


def test_parts_and_processes_take_the_step_of_the_whole_batch(place: Path) -> None:
    whole, expected = read_run(dpo.run(settings(place, "whole")))
    halves, metrics = read_run(dpo.run(settings(place, "halves", accumulate=2)))
    for name, values in whole.items():
        torch.testing.assert_close(halves[name], values, atol=2e-3, rtol=0)
    for line, other in zip(metrics, expected, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], abs=1e-4)
        assert line["chosen_log_prob"] == pytest.approx(other["chosen_log_prob"], abs=1e-2)
    two = settings(place, "two")
    assert run_ranks(lambda: dpo.run(two)) == [0, 0]
    ranks, lines = read_run(two.out / "final")
    assert all(torch.equal(halves[name], ranks[name]) for name in halves)
    assert lines == metrics


def test_a_first_process_that_is_late_holds_up_no_other(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LateMetrics(Metrics):
        def __init__(self, *arguments: Any, is_first: bool) -> None:
            if is_first:
                time.sleep(0.5)
            super().__init__(*arguments, is_first=is_first)

    monkeypatch.setattr(dpo, "Metrics", LateMetrics)
    assert run_ranks(lambda: dpo.run(settings(place, "late", steps=1))) == [0, 0]


def test_a_batch_has_a_pair_for_each_part(place: Path) -> None:
    with pytest.raises(UsageError, match="expected at least one example for each of 5"):
        dpo.run(settings(place, "thin", accumulate=5))


def test_numbers_that_are_not_finite_stop_before_the_step(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpo.Optimisers, "clip_gradients", lambda _: float("nan"))
    monkeypatch.setattr(dpo.Optimisers, "step", lambda *_: pytest.fail("a step was taken"))
    with pytest.raises(TrainingError, match=r"step 1: .* gradient norm nan") as raised:
        dpo.run(settings(place, "nan"))
    shard = place / "corpus" / "preferences" / "00000.tar"
    keys = [row["key"] for row, _ in read_preferences(shard)]
    assert all(key in str(raised.value) for key in keys)
