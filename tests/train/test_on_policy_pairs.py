"""On-policy preference pairs: drawn by the model, ranked by a judge, read by DPO."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from builders.tiny_corpus import write_tiny_corpus
from builders.tiny_model import write_tiny_model

from stylear.curate.corpus.shards import tar_samples
from stylear.errors import CorpusError
from stylear.train import dpo_trainer as dpo
from stylear.train import pairs
from stylear.train.checkpoint import read_metrics
from stylear.train.settings import DpoSettings, PairsSettings


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pairs")
    write_tiny_corpus(root / "corpus")
    write_tiny_model(root / "model")
    return root


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
    assert len(manifest["judge"]["sha256"]) == 64


def test_the_same_settings_make_the_same_bytes_also_in_other_batches(place: Path) -> None:
    first = pairs.run(settings(place, "one"))
    second = pairs.run(settings(place, "two", sampling_batch=4))
    assert [p.read_bytes() for p in sorted((first / "preferences").glob("*.tar"))] == [
        p.read_bytes() for p in sorted((second / "preferences").glob("*.tar"))
    ]


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "SHARD_JOBS", 2)
    whole = pairs.run(settings(place, "whole"))
    draw, calls = pairs.draw_samples, 0

    def dying(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return draw(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pairs, "draw_samples", dying)
    with pytest.raises(KeyboardInterrupt):
        pairs.run(settings(place, "stopped"))
    with pytest.raises(CorpusError, match="finished preference pairs"):
        pairs.list_pair_shards(place / "stopped")
    calls = 4
    stopped = pairs.run(settings(place, "stopped"))
    assert calls == 5  # the two shards that were there are not drawn again
    assert rows_of(stopped) == rows_of(whole)


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
