"""Metrics are written to every place that was asked for, by the first process alone."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stylear.errors import UsageError
from stylear.train.checkpoint import Run
from stylear.train.metrics import Metrics, check_wandb, read_metrics
from stylear.train.settings import SftSettings


def settings(out: Path, **more: object) -> SftSettings:
    return SftSettings.model_validate({"corpus": ["c"], "model": "m", "out": out, **more})


def test_lines_after_the_starting_step_are_dropped_on_resume(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with Metrics(run, 0, settings(tmp_path)) as metrics:
        for step in (1, 2, 3):
            metrics.write(step, {"loss": step / 3, "lr": 1.25e-8})
    with Metrics(run, 1, settings(tmp_path)) as metrics:
        assert metrics.past == [{"step": 1, "loss": 0.3333333, "lr": 1.25e-8}]
        metrics.write(2, {"loss": 7.0})
    assert read_metrics(run.metrics) == [
        {"step": 1, "loss": 0.3333333, "lr": 1.25e-8},
        {"step": 2, "loss": 7.0},
    ]


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    with Metrics(Run(tmp_path), 0, settings(tmp_path), is_first=False) as metrics:
        metrics.write(1, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_weights_and_biases_get_settings_and_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    run = SimpleNamespace(
        log=lambda values, step: calls.append((step, values)),
        finish=lambda: calls.append("finish"),
    )

    def init(**arguments: Any) -> SimpleNamespace:
        calls.append(arguments)
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    chosen = settings(tmp_path / "warm", wandb="styles")
    (tmp_path / "warm").mkdir()
    with Metrics(Run(tmp_path / "warm"), 0, chosen) as metrics:
        metrics.write(1, {"loss": 0.5})
    assert (calls[0]["project"], calls[0]["name"], calls[0]["resume"]) == (
        "styles",
        "warm",
        "allow",
    )
    assert calls[0]["config"]["batch_size"] == 16
    assert calls[1:] == [(1, {"loss": 0.5}), "finish"]


def test_a_missing_package_is_named_with_its_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    check_wandb(settings(tmp_path))
    with pytest.raises(UsageError, match="wandb: expected the package") as raised:
        check_wandb(settings(tmp_path, wandb="styles"))
    assert raised.value.hint is not None
    assert raised.value.hint.startswith("pip install wandb")
