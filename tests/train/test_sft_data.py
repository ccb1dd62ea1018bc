"""Settings of the data reach the training run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders.tiny_corpus import CAPTIONS, pair, write_tiny_corpus
from builders.tiny_model import write_tiny_model
from safetensors.torch import load_file

from stylear.curate.corpus.shards import write_shard
from stylear.errors import CorpusError, RecipeError
from stylear.model.open import load_model
from stylear.train import sft_trainer as sft
from stylear.train.metrics import read_metrics
from stylear.train.settings import SftSettings, load_settings


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sft-data")
    write_tiny_corpus(root / "corpus")
    lone = [pair(CAPTIONS[0], "wool", 1), pair(CAPTIONS[1], "silk", 2)]
    write_shard(root / "lone" / "train", 0, lone)
    write_tiny_model(root / "model")
    return root


def settings(place: Path, out: str, **more: object) -> SftSettings:
    values = {
        "corpus": [place / "corpus"],
        "model": str(place / "model"),
        "out": place / out,
        "steps": 2,
        "batch_size": 4,
        "lr": 1e-2,
        "sample_every": 100,
        **more,
    }
    return SftSettings.model_validate(values)


def test_features_computed_ahead_of_the_step_train_the_same_model(place: Path) -> None:
    cached = sft.run(settings(place, "cached"))
    computed = sft.run(settings(place, "computed", features="compute"))
    assert list((place / "cached").rglob("features.npy"))
    assert not list((place / "computed").rglob("features.npy"))
    name = "resampler.safetensors"
    expected, found = load_file(cached / name), load_file(computed / name)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=2e-3, rtol=0)


def test_wrong_codes_reach_the_training_step(place: Path) -> None:
    clean = read_metrics(sft.run(settings(place, "clean", steps=1)).parent / "metrics.jsonl")
    noisy = read_metrics(
        sft.run(settings(place, "noisy", steps=1, code_noise=1.0)).parent / "metrics.jsonl"
    )
    assert clean[0]["loss"] != noisy[0]["loss"]


def test_a_corpus_is_drawn_by_its_weight(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    original = sft.open_encoded

    def open_encoded(*args: object, **options: object) -> object:
        opened.append(original(*args, **options))
        return opened[-1]

    monkeypatch.setattr(sft, "open_encoded", open_encoded)
    corpora = [place / "corpus", place / "lone"]
    sft.run(settings(place, "weighted", corpus=corpora, corpus_weights=(1, 3), steps=1))
    rows = [row for step in range(7) for row in opened[0].draw_rows(0, step, 2)]
    assert sum(row >= 12 for row in rows) == 10  # of the 14 examples of an epoch


def test_styles_of_one_image_stop_a_run_that_needs_siblings(place: Path) -> None:
    lone = {"corpus": [place / "lone"], "style_from": "sibling", "batch_size": 2}
    with pytest.raises(CorpusError, match=r"style_from sibling: .* found 2 styles, none with more"):
        sft.run(settings(place, "sibling", **lone))
    assert not (place / "sibling" / "metrics.jsonl").exists()


def test_one_style_is_said_and_recorded(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shard(place / "wool" / "train", 0, [pair(c, "wool", i) for i, c in enumerate(CAPTIONS)])
    final = sft.run(settings(place, "one", corpus=[place / "wool"], steps=1))
    warning = "all 4 pairs show one style (wool)"
    assert warning in capsys.readouterr().err
    assert load_model(final).settings.base["training"]["warnings"][0].startswith(warning)


def test_sizes_are_written_as_they_were_given(tmp_path: Path) -> None:
    values = {"corpus": ["c"], "model": "m", "out": tmp_path}
    parsed = SftSettings.model_validate({**values, "buckets": ["512x512", "384x640"]})
    assert parsed.buckets == ((512, 512), (384, 640))
    assert parsed.model_dump(mode="json")["buckets"] == ["512x512", "384x640"]
    for wrong in ("512", "0x512", "512x", 512):
        with pytest.raises(RecipeError, match=r"buckets\.0: .*expected HEIGHTxWIDTH in pixels"):
            load_settings(SftSettings, None, {**values, "buckets": [wrong]})
