"""DPO starts at ln 2, moves apart what it should, and resumes exactly."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from builders.tiny_corpus import write_tiny_corpus
from builders.tiny_model import write_tiny_model
from safetensors.torch import load_file

from stylear.errors import CorpusError
from stylear.train import dpo_trainer as dpo
from stylear.train.checkpoint import read_metrics
from stylear.train.settings import DpoSettings


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dpo")
    write_tiny_corpus(root / "corpus")
    write_tiny_model(root / "model")
    return root


def settings(place: Path, out: str, **more: object) -> DpoSettings:
    values = {
        "corpus": [place / "corpus"],
        "model": str(place / "model"),
        "out": place / out,
        "encoded": place / "encoded",
        "steps": 4,
        "batch_size": 4,
        "lr": 1e-3,
        "full": True,
        "save_every": 2,
        **more,
    }
    return DpoSettings.model_validate(values)


def test_first_step_costs_ln_2_and_later_ones_less(place: Path) -> None:
    final = dpo.run(settings(place, "learns", steps=12))
    lines = read_metrics(final.parent / "metrics.jsonl")
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert lines[0]["margin"] == pytest.approx(0, abs=1e-3)
    assert lines[-1]["loss"] < 0.4
    assert lines[-1]["accuracy"] == 1.0
    assert {"chosen_log_prob", "rejected_log_prob", "gradient_norm"} <= lines[-1].keys()


@pytest.mark.parametrize("kind", ["ipo", "simpo"])
def test_other_losses_run(place: Path, kind: str) -> None:
    final = dpo.run(
        settings(place, kind, kind=kind, steps=2, length_normalised=True, chosen_nll=0.1)
    )
    assert len(read_metrics(final.parent / "metrics.jsonl")) == 2


def test_killed_run_ends_with_the_same_weights(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = dpo.run(settings(place, "straight"))
    step = dpo.Optimisers.step

    def dying(self: dpo.Optimisers, number: int) -> tuple[float, float]:
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(dpo.Optimisers, "step", dying)
    with pytest.raises(KeyboardInterrupt):
        dpo.run(settings(place, "killed"))
    monkeypatch.undo()
    resumed = dpo.run(settings(place, "killed"))
    expected, found = (load_file(path / "model.safetensors") for path in (straight, resumed))
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_epochs_of_picks_are_permutations() -> None:
    picks = [pick for step in range(5) for pick in dpo.draw_pair_indices(3, step, 2, 5)]
    assert sorted(picks[:5]) == sorted(picks[5:]) == [0, 1, 2, 3, 4]


def test_corpus_without_preferences_says_why_and_writes_nothing(
    place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "corpus" / "train", tmp_path / "train")
    with pytest.raises(CorpusError, match="the stage pairs was not run on it"):
        dpo.run(settings(place, "none", corpus=[tmp_path]))
    (tmp_path / "preferences").mkdir()
    (tmp_path / "recipe.yaml").write_text(
        "references: [{type: mini}]\nsynthesize: {candidates: 1}\n"
    )
    with pytest.raises(CorpusError, match=r"synthesize\.candidates is 1") as raised:
        dpo.run(settings(place, "none", corpus=[tmp_path]))
    assert "synthesize.candidates to 2 or more" in str(raised.value.hint)
    assert not (place / "none").exists()  # nothing is written for a corpus that cannot be used


def test_a_batch_larger_than_the_preferences_is_said_and_recorded(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    final = dpo.run(settings(place, "small", steps=1, batch_size=9))
    warning = "batch_size 9 is more than the 4 preference pairs; every step takes all of them once"
    assert f"warning: {warning}\n" in capsys.readouterr().err
    assert read_metrics(final.parent / "metrics.jsonl")[0]["epoch"] == 1.0
    training = json.loads((final / "stylear.json").read_text())["base"]["training"]
    assert (training["pairs"], training["warnings"]) == (4, [warning])
