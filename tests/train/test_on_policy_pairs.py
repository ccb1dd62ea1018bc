"""On-policy preference pairs: drawn by the model, ranked by a judge, read by DPO."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders.tiny_corpus import picture
from builders.tiny_model import write_tiny_model

from stylear.curate.corpus.shards import tar_samples
from stylear.encoders.texture import texture_similarity
from stylear.errors import CorpusError, SettingsChanged
from stylear.evaluation.metrics import harmonic_mean
from stylear.model.open import load_model
from stylear.train import dpo_trainer as dpo
from stylear.train import pairs, rewards, rollout
from stylear.train.data import open_encoded
from stylear.train.metrics import read_metrics
from stylear.train.pictures import decode_picture
from stylear.train.settings import DpoSettings, PairsSettings


def settings(place: Path, out: str, **more: object) -> PairsSettings:
    values = {
        "corpus": [place / "corpus"],
        "model": str(place / "model"),
        "out": place / out,
        "encoded": place / "encoded",
        "prompts": 6,
        "samples": 3,
        "margin": 0.0,
        **more,
    }
    return PairsSettings.model_validate(values)


def rows_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(sample["json"]) for sample in read_samples(folder)]


def read_samples(folder: Path) -> list[dict[str, bytes]]:
    return [sample for shard in pairs.list_pair_shards(folder) for _, sample in tar_samples(shard)]


def test_the_chosen_picture_scores_higher_than_the_rejected_one(place: Path) -> None:
    folder = pairs.run(settings(place, "made"))
    rows = rows_of(folder)
    assert 0 < len(rows) <= 6
    for row, sample in zip(rows, read_samples(folder), strict=True):
        assert row["margin"] == pytest.approx(
            float(str(row["chosen_score"])) - float(str(row["rejected_score"])), abs=2e-6
        )
        assert float(str(row["margin"])) > 0
        assert sample["chosen.png"] != sample["rejected.png"]
        assert sample["txt"].decode() == row["caption"]
    manifest = json.loads((folder / "pairs.json").read_text())
    assert manifest["jobs"] == 6
    assert manifest["pairs"] == len(rows)
    assert [scorer["score"] for scorer in manifest["scorers"]] == ["clip-text", "clip-image"]
    assert all(len(scorer["sha256"]) == 64 for scorer in manifest["scorers"])
    assert [corpus["name"] for corpus in manifest["corpora"]] == ["corpus"]


def test_a_style_guidance_of_its_own_draws_other_pictures(place: Path) -> None:
    model = load_model(place / "model")
    data = open_encoded(model, [place / "corpus"], "train", place / "encoded")
    jobs = rollout.plan_jobs(data, 3, seed=0)
    drawn = [
        rollout.draw_codes(model, data, jobs, rollout.Sampling(0, 2, 4.0, 64, 1.0, 8, scale))
        for scale in (None, 4.0, 0.0)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    one, two = (
        pairs.run(settings(place, f"style-{scale}", style_guidance=scale)) for scale in (None, 0.0)
    )
    assert [s["chosen.png"] for s in read_samples(one)] != [
        s["chosen.png"] for s in read_samples(two)
    ]


@pytest.mark.cpu
def test_the_same_settings_make_the_same_bytes_also_in_other_batches(place: Path) -> None:
    first = pairs.run(settings(place, "one"))
    second = pairs.run(settings(place, "two", sampling_batch=4))
    assert [p.read_bytes() for p in sorted((first / "preferences").glob("*.tar"))] == [
        p.read_bytes() for p in sorted((second / "preferences").glob("*.tar"))
    ]


@pytest.mark.cpu
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "SHARD_JOBS", 2)
    whole = pairs.run(settings(place, "whole"))
    draw, calls = pairs.draw_codes, 0

    def dying(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return draw(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pairs, "draw_codes", dying)
    with pytest.raises(KeyboardInterrupt):
        pairs.run(settings(place, "stopped"))
    with pytest.raises(CorpusError, match="finished preference pairs"):
        pairs.list_pair_shards(place / "stopped")
    calls = 4
    stopped = pairs.run(settings(place, "stopped"))
    assert calls == 5  # the two shards that were there are not drawn again
    assert rows_of(stopped) == rows_of(whole)


@pytest.mark.cpu
def test_a_killed_run_ends_with_the_same_bytes(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "SHARD_JOBS", 2)
    whole = pairs.run(settings(place, "undisturbed"))
    killed = settings(place, "killed")
    config = tmp_path / "pairs.yaml"
    config.write_text(json.dumps(killed.model_dump(mode="json")))
    child = [sys.executable, Path(__file__).parents[1] / "builders" / "killed_pairs_child.py"]
    result = subprocess.run([*child, config, "preferences/00001.tar"], check=False)
    assert result.returncode == -signal.SIGKILL
    assert [p.name for p in sorted((killed.out / "preferences").glob("*.tar"))] == ["00000.tar"]
    resumed = pairs.run(killed)
    names = [
        "pairs.json",
        *(f"preferences/{n:05d}.{ext}" for n in range(3) for ext in ("tar", "json")),
    ]
    assert [(resumed / n).read_bytes() for n in names] == [(whole / n).read_bytes() for n in names]


def test_pairs_of_other_settings_or_another_model_are_not_continued(place: Path) -> None:
    pairs.run(settings(place, "first"))
    write_tiny_model(place / "other", seed=1)
    for change in ({"seed": 1}, {"model": str(place / "other")}):
        with pytest.raises(
            SettingsChanged, match="expected pairs of this model, corpus and settings"
        ):
            pairs.run(settings(place, "first", **change))


def test_dpo_says_when_another_model_drew_the_pairs(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pairs.run(settings(place, "drawn"))
    write_tiny_model(place / "another", seed=2)
    values = {"corpus": [place / "corpus"], "pairs": [folder], "out": place / "off", "steps": 1}
    dpo.run(DpoSettings.model_validate(values | {"model": str(place / "another")}))
    assert f"{folder}: its pictures were drawn by another model" in capsys.readouterr().err
    values["out"] = place / "on"
    dpo.run(DpoSettings.model_validate(values | {"model": str(place / "model")}))
    assert "another model" not in capsys.readouterr().err


def test_styles_and_the_images_that_show_them_take_turns(place: Path) -> None:
    model = load_model(str(place / "model"))
    data = open_encoded(model, [place / "corpus"], "train", place / "encoded", copies=1)
    jobs = rollout.plan_jobs(data, 6, seed=0)
    assert [job.group for job in jobs] == ["cold", "warm"] * 3
    assert [job.row for job in jobs] == [
        int(data.groups[job.group][number // 2]) for number, job in enumerate(jobs)
    ]
    styles = rollout.StylePictures(model, data, count=3)
    assert len(styles.of("warm")) == 3  # of the four that there are


@pytest.mark.parametrize("style_score", ["clip-image", "texture"])
def test_scores_are_harmonic_means_over_the_style_pictures(place: Path, style_score: str) -> None:
    scorers = rewards.open_scorers(settings(place, "scored", style_score=style_score), device="cpu")
    first, second, third = (decode_picture(picture(seed)) for seed in range(3))
    scores = scorers.score([first, second], ["a house"], [[first, third]])
    clip = scorers.clip
    text = clip.embed_images(clip.preprocess([first])) @ clip.embed_texts(["a house"]).T
    if style_score == "texture":
        similarity = texture_similarity(first, third).item()
    else:
        a, b = clip.embed_images(clip.preprocess([first, third]))
        similarity = float(a @ b)
    expected = harmonic_mean(text[0], torch.tensor([(1 + similarity) / 2]))
    assert scores.shape == (1, 2)
    assert scores[0, 0].item() == pytest.approx(expected.item(), abs=1e-5)


def test_a_margin_that_nothing_reaches_is_an_error(place: Path) -> None:
    with pytest.raises(CorpusError, match="reaches the margin 5") as raised:
        pairs.run(settings(place, "none", margin=5.0))
    assert "--margin" in str(raised.value.hint)


def test_dpo_trains_on_pairs_of_the_models_own_pictures(place: Path) -> None:
    folder = pairs.run(settings(place, "own"))
    values = {
        "corpus": [place / "corpus"],
        "pairs": [folder],
        "model": str(place / "model"),
        "out": place / "dpo",
        "encoded": place / "encoded",
        "steps": 12,
        "batch_size": 4,
        "lr": 1e-3,
        "full": True,
    }
    final = dpo.run(DpoSettings.model_validate(values))
    lines = read_metrics(final.parent / "metrics.jsonl")
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert lines[-1]["loss"] < lines[0]["loss"]
