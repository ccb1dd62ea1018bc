"""GRPO learns from the scores of the model's own pictures, and resumes exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stylear.errors import UsageError
from stylear.model.open import load_model
from stylear.train import grpo_trainer as grpo
from stylear.train.data import open_encoded
from stylear.train.metrics import read_metrics
from stylear.train.reference import FrozenStart
from stylear.train.rollout import Sampling, draw_codes, plan_jobs
from stylear.train.settings import GrpoSettings
from stylear.train.trainable import prepare_lora, select_trainable


def settings(place: Path, out: str, **more: object) -> GrpoSettings:
    values = {
        "corpus": [place / "corpus"],
        "model": str(place / "model"),
        "out": place / out,
        "encoded": place / "encoded",
        "style_score": "texture",
        "steps": 2,
        "prompts": 2,
        "samples": 3,
        "batch_size": 4,
        "lr": 1e-3,
        "save_every": 1,
        **more,
    }
    return GrpoSettings.model_validate(values)


@pytest.mark.cpu
@pytest.mark.parametrize("full", [False, True])
def test_killed_run_ends_with_the_same_weights_and_metrics(
    place: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    straight = grpo.run(settings(place, f"straight-{full}", full=full, updates=2))
    step, calls = grpo.Optimisers.step, 0

    def dying(self: grpo.Optimisers, number: int) -> tuple[float, float]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(grpo.Optimisers, "step", dying)
    with pytest.raises(KeyboardInterrupt):
        grpo.run(settings(place, f"killed-{full}", full=full, updates=2))
    monkeypatch.undo()
    resumed = grpo.run(settings(place, f"killed-{full}", full=full, updates=2))
    name = "model.safetensors" if full else "adapter_model.safetensors"
    expected, found = (load_file(path / name) for path in (straight, resumed))
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert read_metrics(straight.parent / "metrics.jsonl") == read_metrics(
        resumed.parent / "metrics.jsonl"
    )


def test_the_first_step_is_at_the_start_and_the_scorers_are_recorded(place: Path) -> None:
    final = grpo.run(settings(place, "first"))
    lines = read_metrics(final.parent / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert lines[0]["clipped"] == 0
    assert lines[1]["kl"] > 0
    training = json.loads((final / "stylear.json").read_text())["base"]["training"]
    assert [scorer["score"] for scorer in training["scorers"]] == ["clip-text", "texture"]


def test_the_reference_in_bf16_is_the_start_and_not_the_policy(place: Path) -> None:
    final = grpo.run(settings(place, "bf16", precision="bf16", lr=1e-2))
    lines = read_metrics(final.parent / "metrics.jsonl")
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-2)  # rounding
    assert lines[1]["kl"] > 0.02


def test_several_processes_are_refused_before_anything_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="train grpo: expected one process, found 2"):
        grpo.run(settings(place, "ranks"))
    assert not (place / "ranks").exists()


def test_a_reward_is_learnt(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class CountsLowCodes:
        def describe(self) -> list[dict[str, str]]:
            return []

        def score(self, codes: torch.Tensor, captions: list[str], _: object) -> torch.Tensor:
            return (codes < 16).float().mean(dim=(1, 2)).view(len(captions), -1)

    # an untrained VQ model draws all codes alike, so the codes themselves are scored
    monkeypatch.setattr(grpo, "decode_in_batches", lambda model, codes, size: codes)
    monkeypatch.setattr(grpo, "open_scorers", lambda *_: CountsLowCodes())
    values = {
        "steps": 12,
        "samples": 8,
        "batch_size": 16,
        "lr": 1e-2,
        "kl_weight": 0.0,
        "guidance": 1.0,
        "full": True,
    }
    final = grpo.run(settings(place, "learns", **values, save_every=12))
    rewards = [line["reward"] for line in read_metrics(final.parent / "metrics.jsonl")]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1


def test_log_probs_are_those_of_the_guided_samples(place: Path) -> None:
    """Likeliest codes under guidance have log-probabilities that no other code exceeds."""
    model = load_model(str(place / "model"))
    data = open_encoded(model, [place / "corpus"], "train", place / "encoded", copies=1)
    jobs = plan_jobs(data, 2, seed=0)
    sampling = Sampling(seed=0, samples=1, guidance=3.0, top_k=64, temperature=1e-4, batch_size=2)
    codes = draw_codes(model, data, jobs, sampling).clone()
    values = settings(place, "x", guidance=3.0, temperature=1e-4)
    with torch.no_grad():
        log_probs = grpo.compute_log_probs(model, data, jobs, codes, torch.arange(2), values)
        other = grpo.compute_log_probs(model, data, jobs, (codes + 1) % 64, torch.arange(2), values)
    assert log_probs.shape == (2, 16)
    assert log_probs.dtype == torch.float32
    assert log_probs.exp().min().item() > 0.99
    assert other[:, 0].exp().max().item() < 0.01


def test_the_frozen_start_with_new_lora_is_the_model_without_it(place: Path) -> None:
    values = settings(place, "x")
    plain, model = load_model(str(place / "model")), load_model(str(place / "model"))
    prepare_lora(model, values)
    start = FrozenStart([parameter for _, parameter in select_trainable(model, full=False)])
    embeds = plain.decoder.embed(torch.tensor([[5, 9, 3]]))
    expected = plain.decoder(embeds)
    with torch.no_grad():
        for _, parameter in select_trainable(model, full=False):
            parameter.add_(0.1)
        assert not torch.equal(model.decoder(embeds), expected)
        with start.swapped_in():
            assert torch.equal(model.decoder(embeds), expected)
        assert not torch.equal(model.decoder(embeds), expected)
