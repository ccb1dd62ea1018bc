"""SFT trains what it should, on codes only, and resumes exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.tiny_model import write_tiny_model
from builders.tiny_training import (
    read_losses,
    read_weights,
    sft_settings,
    write_training_inputs,
)
from safetensors.torch import load_file

from stylear.errors import CorpusError, SettingsChanged, UsageError
from stylear.model.open import load_model
from stylear.model.style_model import StyleModel
from stylear.train import sft_trainer as sft
from stylear.train.data import forward_logits, open_encoded
from stylear.train.lineage import describe_origin
from stylear.train.metrics import read_metrics


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_inputs(tmp_path_factory.mktemp("sft"))


class Killed(Exception):
    pass


@pytest.mark.parametrize("more", [{"full": True, "optimizer": "muon"}, {"lora_rank": 2}])
@pytest.mark.cpu
def test_killed_run_ends_with_the_same_weights_and_metrics(
    place: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, object]
) -> None:
    name = "-".join(more)
    straight = sft.run(sft_settings(place, f"straight-{name}", **more))
    step = sft.Optimisers.step

    def dying(self: sft.Optimisers, number: int) -> float:
        if number == 4:
            raise Killed
        return step(self, number)

    monkeypatch.setattr(sft.Optimisers, "step", dying)
    with pytest.raises(Killed):
        sft.run(sft_settings(place, f"killed-{name}", **more))
    monkeypatch.undo()
    resumed = sft.run(sft_settings(place, f"killed-{name}", **more))
    expected, found = read_weights(straight), read_weights(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    lines = [read_losses(path) for path in (straight, resumed)]
    assert lines[0] == lines[1]
    assert [line["step"] for line in lines[0]] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines[0] if "validation_loss" in line] == [2, 4, 6]


def test_training_lowers_the_loss_and_says_what_it_was_made_from(place: Path) -> None:
    final = sft.run(
        sft_settings(place, "learns", steps=40, full=True, lr=3e-3, condition_dropout=0.0)
    )
    losses = [line["loss"] for line in read_metrics(final.parent / "metrics.jsonl")]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    model = load_model(final)
    assert model.settings.base["corpora"][0]["name"] == "corpus"
    assert model.settings.base["training"]["steps"] == 40
    assert (final.parent / "samples" / "step-0000040.png").is_file()
    assert list((final.parent / "tensorboard").glob("events.*"))


def test_a_model_names_the_corpora_of_its_base_too(place: Path) -> None:
    base = load_model(place / "model")
    first, own = ({"name": name, "manifest_sha256": None} for name in ("first", "corpus"))
    base.settings = replace(base.settings, base={"corpora": [first]})
    assert describe_origin(base, sft_settings(place, "named"), {})["corpora"] == [first, own]
    base.settings = replace(base.settings, base={"corpora": [first, own]})
    assert describe_origin(base, sft_settings(place, "named"), {})["corpora"] == [first, own]


def test_lora_leaves_the_base_as_it_was_and_trains_the_resampler(place: Path) -> None:
    final = sft.run(sft_settings(place, "lora", steps=2))
    assert (final / "adapter_config.json").is_file()
    assert not (final / "model.safetensors").exists()
    before = load_file(place / "model" / "resampler.safetensors")
    after = load_file(final / "resampler.safetensors")
    assert any(not torch.equal(before[key].half(), after[key].half()) for key in before)


def test_text_only_training_needs_no_style_encoder(place: Path) -> None:
    final = sft.run(
        sft_settings(place, "plain", steps=2, model=str(place / "base"), style_tokens=0, full=True)
    )
    assert load_model(final).num_style_tokens == 0


def test_loss_reads_only_the_code_positions(place: Path) -> None:
    model = load_model(place / "model")
    data = open_encoded(model, [place / "corpus"], "train", place / "encoded", copies=1)
    seen = data.build_step_batch(0, 0, 4, dropout=0.0, style_from="self")
    tokens = model.resampler(seen.features) if model.resampler is not None else None
    with torch.no_grad():
        before = forward_logits(model, seen.batch, tokens)
        ids = seen.batch.ids.clone()
        ids[:, -1] = model.layout.pad  # the image end: nothing is predicted from it
        after = forward_logits(model, type(seen.batch)(**{**vars(seen.batch), "ids": ids}), tokens)
    assert before.shape == (4 * 16, 64)
    assert torch.equal(before, after)


def test_steps_depend_on_the_seed_and_the_number_only(place: Path) -> None:
    model = load_model(place / "model")
    data = open_encoded(model, [place / "corpus"], "train", place / "encoded", copies=1)
    order = [row for step in range(3) for row in data.draw_rows(7, step, 4).tolist()]
    assert sorted(order) == list(range(12))
    again = data.build_step_batch(7, 2, 4, dropout=0.5, style_from="sibling")
    once = data.build_step_batch(7, 2, 4, dropout=0.5, style_from="sibling")
    assert torch.equal(again.batch.ids, once.batch.ids)
    assert not torch.equal(
        again.batch.ids, data.build_step_batch(8, 2, 4, dropout=0.5, style_from="self").batch.ids
    )


def test_other_settings_do_not_continue_a_run(place: Path) -> None:
    sft.run(sft_settings(place, "fixed", steps=1))
    with pytest.raises(SettingsChanged, match="lr"):
        sft.run(sft_settings(place, "fixed", steps=1, lr=5e-4))


def test_corpus_without_shards_is_named(place: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="train"):
        sft.run(sft_settings(place, "empty", corpus=[tmp_path]))


def test_a_model_keeps_its_own_number_of_style_tokens(place: Path) -> None:
    final = sft.run(sft_settings(place, "own", steps=1, style_tokens=3))
    again = sft.run(sft_settings(place, "again", steps=1, model=str(final), style_tokens=None))
    assert load_model(again).num_style_tokens == 3


def test_a_run_goes_on_from_a_lora_run_and_merges_it_for_full(place: Path) -> None:
    first = sft.run(sft_settings(place, "first", steps=20))
    before = read_weights(first)
    on = sft.run(sft_settings(place, "on", steps=1, model=str(first)))
    adapter = "adapter_model.safetensors/"
    names = {name for name in read_weights(on) if name.startswith(adapter)}
    assert names == {name for name in before if name.startswith(adapter)}
    assert names
    assert any(not torch.equal(read_weights(on)[name], before[name]) for name in names)
    whole = sft.run(sft_settings(place, "whole", steps=1, model=str(first), full=True, lr=1e-9))
    assert not (whole / "adapter_config.json").exists()
    ids = torch.arange(6)[None]
    merged, adapted, base = (
        hidden_of(load_model(model), ids) for model in (whole, first, place / "model")
    )
    torch.testing.assert_close(merged, adapted, atol=0.01, rtol=0)  # it is stored in fp16
    assert (adapted - base).abs().max() > 0.1


def hidden_of(model: StyleModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.decoder(model.decoder.embed(ids))


def test_number_of_style_tokens_has_to_fit(place: Path) -> None:
    with pytest.raises(UsageError, match="expected 3 as model has, found 5"):
        sft.run(sft_settings(place, "five", style_tokens=5))


def test_settings_beside_the_output_are_complete(place: Path) -> None:
    final = sft.run(sft_settings(place, "written", steps=1))
    written = json.loads((final.parent / "settings.json").read_text())
    assert written["sigma"] == 0.1
    assert written["kind"] == "sft"


def test_a_batch_larger_than_the_corpus_is_refused_before_the_first_step(place: Path) -> None:
    with pytest.raises(UsageError, match="batch_size: expected at most the 12 pairs") as raised:
        sft.run(sft_settings(place, "large", batch_size=16))
    assert raised.value.hint == "give --batch-size 12 or less, or build a larger corpus"
    assert not (place / "large" / "metrics.jsonl").exists()


def test_a_batch_across_two_epochs_counts_the_pairs_it_repeats(place: Path) -> None:
    lines = read_losses(sft.run(sft_settings(place, "repeats", steps=2, batch_size=8)))
    assert lines[0]["repeated_pairs"] == 0
    assert 0 <= lines[1]["repeated_pairs"] <= 4  # four of the first epoch, four of the second
    assert [line["epoch"] for line in lines] == [pytest.approx(8 / 12), pytest.approx(16 / 12)]


def test_a_batch_within_the_corpus_repeats_nothing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    final = sft.run(sft_settings(place, "distinct", steps=3, batch_size=4))
    assert "warning" not in capsys.readouterr().err
    lines = read_metrics(final.parent / "metrics.jsonl")
    assert [line["repeated_pairs"] for line in lines] == [0, 0, 0]
    assert [line["tokens_beyond_context"] for line in lines] == [0, 0, 0]
    assert load_model(final).settings.base["training"]["warnings"] == []


def test_a_caption_beyond_the_context_is_said_once(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_model(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    short = json.loads(config.read_text()) | {"max_position_embeddings": 26}
    config.write_text(json.dumps(short))
    final = sft.run(sft_settings(place, "beyond", model=str(tmp_path / "model"), steps=2))
    warning = "12 of 12 sequences exceed the context of model, 26 tokens"
    assert capsys.readouterr().err.count(warning) == 1
    assert warning in load_model(final).settings.base["training"]["warnings"][0]
    lines = read_metrics(final.parent / "metrics.jsonl")
    assert all(line["tokens_beyond_context"] > 0 for line in lines)


def test_one_batch_is_learnt_by_heart(place: Path) -> None:
    chosen = sft_settings(
        place,
        "heart",
        steps=60,
        batch_size=12,
        full=True,
        lr=1e-2,
        sigma=0,
        condition_dropout=0,
        validate_every=100,
        save_every=100,
    )
    losses = [line["loss"] for line in read_losses(sft.run(chosen))]
    assert losses[0] > 3.5
    assert losses[-1] < 0.1
