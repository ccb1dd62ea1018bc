"""DPO starts at ln 2, moves apart what it should, and resumes exactly."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from builders.tiny_model import write_tiny_model
from pydantic import ValidationError
from safetensors.torch import load_file

from stylear.curate.corpus.shards import tar_samples
from stylear.curate.corpus.tars import write_tar
from stylear.errors import CorpusError, SettingsChanged
from stylear.model.open import load_model
from stylear.train import dpo_trainer as dpo
from stylear.train import preferences, reference
from stylear.train.metrics import read_metrics
from stylear.train.settings import DpoSettings


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
    assert lines[0]["below_ln_2"] == pytest.approx(0, abs=1e-4)
    assert lines[-1]["below_ln_2"] == pytest.approx(math.log(2) - lines[-1]["loss"], abs=2e-6)
    assert lines[-1]["accuracy"] == 1.0
    assert {"chosen_log_prob", "rejected_log_prob", "gradient_norm"} <= lines[-1].keys()


def test_bf16_starts_at_ln_2_too(place: Path) -> None:
    final = dpo.run(settings(place, "bf16", steps=1, precision="bf16"))
    line = read_metrics(final.parent / "metrics.jsonl")[0]
    assert line["loss"] == pytest.approx(math.log(2), abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "first"), [("ipo", 25.0), ("kto", 0.5), ("robust", math.log(2)), ("simpo", None)]
)
def test_other_losses_start_where_policy_and_reference_are_equal(
    place: Path, kind: str, first: float | None
) -> None:
    final = dpo.run(settings(place, kind, kind=kind, steps=2, length_normalised=True))
    lines = read_metrics(final.parent / "metrics.jsonl")
    assert len(lines) == 2
    assert first is None or lines[0]["loss"] == pytest.approx(first, abs=1e-3)
    assert (final.parent / "reference.json").exists() == (kind != "simpo")


def test_reference_log_probs_are_stored_and_computed_again_for_another_model(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []
    compute = reference.compute_reference_log_probs
    monkeypatch.setattr(
        reference, "compute_reference_log_probs", lambda *a: calls.append(a) or compute(*a)
    )
    shared = {"steps": 1, "encoded": place / "stored"}
    first = dpo.run(settings(place, "stored-1", **shared))
    dpo.run(settings(place, "stored-2", **shared, beta=0.5, kind="kto"))
    assert len(calls) == 1  # neither beta nor the kind changes the reference
    write_tiny_model(place / "other", seed=1)
    dpo.run(settings(place, "stored-3", **shared, model=str(place / "other")))
    assert len(calls) == 2
    assert len(list((place / "stored").glob("reference-*.safetensors"))) == 2
    assert "computing the reference log-probabilities of 4 pairs" in capsys.readouterr().err
    # a damaged file is said and replaced
    record = json.loads((first.parent / "reference.json").read_text())
    (place / "stored" / record["file"]).write_bytes(b"damaged")
    dpo.run(settings(place, "stored-4", **shared))
    assert len(calls) == 3
    assert "cannot be used as reference log-probabilities" in capsys.readouterr().err


def test_checkpoints_are_not_continued_against_another_reference(
    place: Path, tmp_path: Path
) -> None:
    corpus = shutil.copytree(place / "corpus", tmp_path / "corpus")
    values = {"steps": 2, "save_every": 1, "corpus": [corpus]}
    final = dpo.run(settings(place, "changed", **values))
    shutil.rmtree(final)
    swap_preference_images(corpus, "chosen", "rejected")
    with pytest.raises(SettingsChanged, match="trained against reference"):
        dpo.run(settings(place, "changed", **values))


def test_a_hash_of_a_policy_differs_for_two_adapters_of_one_base(place: Path) -> None:
    hashes = set()
    for name, lr in (("adapter-1", 1e-3), ("adapter-2", 2e-3)):
        final = dpo.run(settings(place, name, steps=1, full=False, lr=lr))
        hashes.add(reference.hash_policy(load_model(final)))
    assert len(hashes) == 2


def swap_preference_images(corpus: Path, source: str, target: str) -> None:
    """Write the `source` side of every preference pair as its `target` side, and the other way round."""
    shard = corpus / "preferences" / "00000.tar"
    members = []
    for key, files in tar_samples(shard):
        swapped = files | {
            f"{target}.png": files[f"{source}.png"],
            f"{source}.png": files[f"{target}.png"],
        }
        members += [(f"{key}.{name}", data) for name, data in swapped.items()]
    write_tar(shard, members)


def test_pairs_of_equal_images_are_an_error_before_anything_is_trained(
    place: Path, tmp_path: Path
) -> None:
    corpus = shutil.copytree(place / "corpus", tmp_path / "corpus")
    shard = corpus / "preferences" / "00000.tar"
    samples = list(tar_samples(shard))
    samples[2][1]["rejected.png"] = samples[2][1]["chosen.png"]
    write_tar(shard, [(f"{k}.{name}", d) for k, files in samples for name, d in files.items()])
    with pytest.raises(CorpusError, match=f"{samples[2][0]}: expected two different images"):
        dpo.run(settings(place, "equal", corpus=[corpus]))
    assert not (place / "equal" / "metrics.jsonl").exists()


def test_pairs_with_the_same_codes_are_skipped_and_an_empty_set_is_an_error(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = preferences.read_encoded_preferences

    def read_equal(equal: int) -> None:
        def equalise(path: Path) -> tuple[torch.Tensor, list[dict[str, object]]]:
            codes, rows = read(path)
            codes[1, :equal] = codes[0, :equal]
            return codes, rows

        monkeypatch.setattr(preferences, "read_encoded_preferences", equalise)

    read_equal(1)
    final = dpo.run(settings(place, "same-codes", steps=1, batch_size=2))
    training = json.loads((final / "stylear.json").read_text())["base"]["training"]
    assert training["pairs"] == 3
    assert training["warnings"] == ["1 preference pairs skipped: both images have the same codes"]
    read_equal(4)
    with pytest.raises(
        CorpusError, match=r"none usable of 4 .*4 have the same codes on both sides"
    ):
        dpo.run(settings(place, "no-codes"))


def test_captions_beyond_the_context_are_said_before_the_first_step(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    model = load_model(str(place / "model"))
    short = dataclasses.replace(model.decoder.config, max_position_embeddings=24)
    model.decoder.config = short
    monkeypatch.setattr(dpo, "load_for_training", lambda *_: model)
    monkeypatch.setattr(dpo, "open_reference_log_probs", stop)
    with pytest.raises(KeyboardInterrupt):
        dpo.run(settings(place, "long"))
    assert "4 of 4 prompts are longer than the context of model" in capsys.readouterr().err


def test_a_loss_that_stays_at_ln_2_is_said_once_and_recorded(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    final = dpo.run(settings(place, "stalled", steps=24, lr=1e-12, batch_size=2, save_every=50))
    warning = "the loss has stayed within 0.01 of ln 2 for 20 steps"
    assert capsys.readouterr().err.count(warning) == 1
    training = json.loads((final / "stylear.json").read_text())["base"]["training"]
    assert [w for w in training["warnings"] if warning in w] == training["warnings"]


def test_a_stall_counts_neither_the_warm_up_nor_steps_that_learn(place: Path) -> None:
    watch = dpo.StallWatch(settings(place, "watch", steps=100, warmup=5), [])
    assert [watch.observe(0.0) for _ in range(24)] == [False] * 24
    assert watch.observe(0.0)
    learning = dpo.StallWatch(settings(place, "watch", steps=100), [])
    assert [learning.observe(0.02) for _ in range(40)] == [False] * 40
    resumed = dpo.StallWatch(settings(place, "watch", steps=100), [{"below_ln_2": 0.0}] * 20)
    assert resumed.has_warned
    assert not resumed.observe(0.0)


def test_label_smoothing_is_refused_where_it_has_no_meaning(place: Path) -> None:
    with pytest.raises(ValidationError, match="label_smoothing: expected 0 with kind ipo"):
        settings(place, "smooth", kind="ipo", label_smoothing=0.1)


@pytest.mark.cpu
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
