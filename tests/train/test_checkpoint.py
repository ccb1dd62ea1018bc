"""Checkpoints appear whole, the best one is kept, and those of another run are refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import warnings
from pathlib import Path

import pytest
import torch
from builders.tiny_training import (
    read_losses,
    read_weights,
    sft_settings,
    write_training_inputs,
)

from stylear.errors import WeightsError
from stylear.train import sft_trainer as sft
from stylear.train.checkpoint import Run, find_best_checkpoint


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_inputs(tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.cpu
def test_run_resumed_after_kill_9_has_the_same_weights_and_average(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"ema_decay": 0.9, "text_dropout": 0.2, "code_noise": 0.3, "sigma": "0.1:0.3"}
    straight = sft.run(sft_settings(place, "straight", **more))
    step = sft.Optimisers.step

    def killed(self: sft.Optimisers, number: int) -> float:
        if number == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, number)

    monkeypatch.setattr(sft.Optimisers, "step", killed)
    run = sft_settings(place, "killed", **more)
    child = multiprocessing.get_context("fork").Process(target=sft.run, args=(run,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    monkeypatch.undo()
    resumed = sft.run(run)
    for part in (Path("final"), Path("checkpoints/step-0000006")):
        expected, found = (read_weights(final.parent / part) for final in (straight, resumed))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert read_losses(resumed) == read_losses(straight)


def test_the_best_checkpoint_is_kept_with_the_newest(place: Path) -> None:
    more = {"save_every": 1, "keep": 1, "keep_best": True, "lr": 0.03, "full": True}
    final = sft.run(sft_settings(place, "best", **more))
    losses = {line["step"]: line["validation_loss"] for line in read_losses(final)}
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    best = min(losses, key=lambda step: losses[step])
    kept = [int(path.name[-7:]) for path in Run(final.parent).checkpoints()]
    assert kept == sorted({best, 6})
    state = json.loads((final.parent / f"checkpoints/step-{best:07d}/state.json").read_text())
    assert state == {"step": best, "validation_loss": pytest.approx(losses[best], rel=1e-6)}


def test_the_first_of_equally_good_checkpoints_is_the_best(tmp_path: Path) -> None:
    for step, loss in ((1, 3.0), (2, 2.0), (3, 2.0), (4, None)):
        folder = tmp_path / "checkpoints" / f"step-{step:07d}"
        folder.mkdir(parents=True)
        state = {"step": step} | ({} if loss is None else {"validation_loss": loss})
        (folder / "state.json").write_text(json.dumps(state))
    assert find_best_checkpoint(Run(tmp_path)) == tmp_path / "checkpoints" / "step-0000002"
    assert find_best_checkpoint(Run(tmp_path / "other")) is None


def test_a_directory_without_its_state_file_is_no_checkpoint(place: Path) -> None:
    sft.run(sft_settings(place, "partial", steps=2, save_every=1))
    run = Run(place / "partial")
    (run.root / "checkpoints" / "step-0000002" / "state.json").unlink()
    assert [path.name for path in run.checkpoints()] == ["step-0000001"]


def test_a_checkpoint_of_another_architecture_is_refused(place: Path) -> None:
    final = sft.run(sft_settings(place, "deeper", steps=3, save_every=3, full=True))
    checkpoint = final.parent / "checkpoints" / "step-0000003"
    config = json.loads((checkpoint / "config.json").read_text())
    config["rope_theta"] = config["rope_parameters"]["rope_theta"] = 500.0
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"step-0000003: rope_theta expected 10000\.0 as model"):
        sft.run(sft_settings(place, "deeper", steps=4, full=True))
