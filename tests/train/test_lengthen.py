"""A finished run goes on to more steps; a failed command leaves nothing behind; what is cached is hashed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.tiny_corpus import write_tiny_corpus
from builders.tiny_model import write_tiny_base, write_tiny_model
from safetensors.torch import load_file

from stylear.errors import CorpusError, RecipeError, SettingsChanged, UsageError
from stylear.train import dpo_trainer as dpo
from stylear.train import sft_trainer as sft
from stylear.train.metrics import read_metrics
from stylear.train.settings import DpoSettings, SftSettings, load_settings


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lengthen")
    write_tiny_corpus(root / "corpus")
    write_tiny_model(root / "model")
    write_tiny_base(root / "base")
    return root


def settings(place: Path, out: str, **more: object) -> SftSettings:
    values = {
        "corpus": [place / "corpus"],
        "model": str(place / "model"),
        "out": place / out,
        "encoded": place / "encoded",
        "style_tokens": 3,
        "batch_size": 4,
        "lr": 1e-3,
        "validate_every": 100,
        "sample_every": 100,
        "save_every": 100,
    }
    return SftSettings.model_validate({**values, **more})


def weights_of(model: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.name}/{name}": value
        for file in sorted(model.glob("*.safetensors"))
        for name, value in load_file(file).items()
    }


@pytest.mark.cpu
def test_a_finished_run_goes_on_as_if_it_had_been_asked_for_at_once(place: Path) -> None:
    whole = sft.run(settings(place, "whole", steps=6))
    sft.run(settings(place, "grown", steps=4))
    grown = sft.run(settings(place, "grown", steps=6))
    expected, found = weights_of(whole), weights_of(grown)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    curves = [
        [(line["step"], line["loss"]) for line in read_metrics(place / name / "metrics.jsonl")]
        for name in ("grown", "whole")
    ]
    assert curves[0] == curves[1]
    assert [step for step, _ in curves[0]] == [1, 2, 3, 4, 5, 6]


def test_a_cosine_schedule_says_that_it_is_stretched(place: Path, capsys: Any) -> None:
    sft.run(settings(place, "cosine", steps=2, schedule="cosine"))
    sft.run(settings(place, "cosine", steps=3, schedule="cosine"))
    assert "extended from 2 to 3 steps; the cosine schedule is stretched" in capsys.readouterr().err


def test_fewer_steps_or_a_run_without_its_last_state_do_not_go_on(place: Path) -> None:
    sft.run(settings(place, "short", steps=3))
    with pytest.raises(SettingsChanged, match="made with steps = 3, now 2"):
        sft.run(settings(place, "short", steps=2))
    shutil.rmtree(place / "short" / "checkpoints")
    with pytest.raises(SettingsChanged, match="its last checkpoint was removed"):
        sft.run(settings(place, "short", steps=4))
    assert (place / "short" / "final").is_dir()


def test_a_failed_command_leaves_out_as_it_was(place: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="expected shards to train on"):
        sft.run(settings(place, "poisoned", steps=2, corpus=[tmp_path / "mistyped"]))
    assert not (place / "poisoned").exists()
    sft.run(settings(place, "poisoned", steps=2))


def test_settings_of_a_run_that_never_took_a_step_are_replaced(place: Path) -> None:
    (place / "early").mkdir()
    (place / "early" / "settings.json").write_text('{"kind": "sft", "steps": 9, "seed": 5}')
    assert sft.run(settings(place, "early", steps=2)).is_dir()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_named_before_anything_is_written(place: Path) -> None:
    with pytest.raises(UsageError, match=r"--device: expected .* \(cpu\), found 'cuda'"):
        sft.run(settings(place, "gpu", steps=2, device="cuda"))
    values = {"corpus": [place / "corpus"], "model": str(place / "model"), "out": place / "gpu"}
    with pytest.raises(UsageError, match="found 'cuda:7'"):
        dpo.run(DpoSettings.model_validate({**values, "device": "cuda:7"}))
    assert not (place / "gpu").exists()


def test_a_wrong_value_is_explained_and_not_guessed_at(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_settings(
            SftSettings, None, {"steps": -5, "corpus": ["c"], "model": "m", "out": tmp_path}
        )
    assert caught.value.hint == "Optimiser steps."
    with pytest.raises(RecipeError) as caught:
        load_settings(
            SftSettings, None, {"step": 5, "corpus": ["c"], "model": "m", "out": tmp_path}
        )
    assert caught.value.hint == "did you mean steps?"
