"""Scores against hand-derived numbers, and an evaluation from models to its table."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.tiny_csd import write_tiny_csd
from builders.tiny_dino import write_tiny_dino
from builders.tiny_model import write_tiny_base, write_tiny_model
from PIL import Image

from stylear.encoders.clip import ClipEncoder
from stylear.encoders.dino import DinoEncoder
from stylear.encoders.style import CsdEncoder
from stylear.errors import SourceError, UsageError
from stylear.evaluation.evaluate import METRICS, Evaluation, choose_leakage_basis, evaluate
from stylear.evaluation.metrics import (
    bootstrap,
    content_leakage,
    harmonic_mean,
    prompt_recall,
    win_rate,
)
from stylear.model.style_model import StyleModel
from stylear.sampling.references import Reference, load_prompts, load_styles


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def references() -> list[Reference]:
    names = ["dots--1", "dots--2", "lines--1", "lines--2"]
    return [Reference(name, picture(i), name.split("--")[0]) for i, name in enumerate(names)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[StyleModel]:
    place = tmp_path_factory.mktemp("models")
    return [write_tiny_model(place / "styled"), write_tiny_base(place / "plain")]


@pytest.fixture(scope="module")
def evaluation(models: list[StyleModel]) -> Evaluation:
    clip = models[0].clip
    assert clip is not None
    return evaluate(models, references(), ["a red apple", "the cat"], [0, 1], clip=clip)


def test_harmonic_mean_is_clamped_at_zero() -> None:
    text = torch.tensor([0.3, 0.5, -0.2, 0.0])
    style = torch.tensor([0.6, 0.5, 0.9, 0.0])
    torch.testing.assert_close(harmonic_mean(text, style), torch.tensor([0.4, 0.5, 0.0, 0.0]))


def test_leakage_is_own_content_minus_the_mean_of_the_others() -> None:
    contents = torch.eye(3)
    pictures = torch.tensor([[0.9, 0.1, 0.3], [0.9, 0.1, 0.3]])
    others = ~torch.eye(3, dtype=torch.bool)
    leakage = content_leakage(pictures, torch.tensor([0, 1]), contents, others)
    torch.testing.assert_close(leakage, torch.tensor([0.9 - 0.2, 0.1 - 0.6]))
    alone = content_leakage(pictures, torch.tensor([0, 1]), contents, torch.zeros(3, 3).bool())
    assert torch.isnan(alone).all()


def test_pictures_that_ignore_their_reference_leak_exactly_nothing() -> None:
    """The same picture for every reference: own and others cancel, whatever the contents are."""
    generator = torch.Generator().manual_seed(0)
    contents = torch.nn.functional.normalize(torch.randn(5, 8, generator=generator), dim=-1)
    same = torch.nn.functional.normalize(torch.randn(1, 8, generator=generator), dim=-1)
    leakage = content_leakage(
        same.expand(5, 8), torch.arange(5), contents, ~torch.eye(5, dtype=torch.bool)
    )
    assert leakage.mean().item() == pytest.approx(0.0, abs=1e-6)
    copies = content_leakage(contents, torch.arange(5), contents, ~torch.eye(5, dtype=torch.bool))
    assert copies.mean().item() > 0.5


def test_recall_counts_pictures_that_are_nearest_to_their_own_prompt() -> None:
    texts = torch.eye(3)
    pictures = torch.tensor([[0.2, 0.1, 0.0], [0.2, 0.1, 0.0], [0.0, 0.0, 0.1]])
    own = torch.tensor([0, 1, 2])
    assert prompt_recall(pictures, texts, own).tolist() == [1.0, 0.0, 1.0]
    assert torch.isnan(prompt_recall(pictures, texts[:1], torch.zeros(3, dtype=torch.long))).all()


def test_a_win_counts_one_and_a_tie_half() -> None:
    estimate = win_rate([0.5, 0.2, 0.3, 0.9], [0.4, 0.2, 0.6, 0.1], ["a", "b", "c", "d"])
    assert estimate is not None
    assert estimate.mean == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert win_rate([], [], []) is None


def test_a_model_beats_another_on_the_same_reference_prompt_and_seed(
    evaluation: Evaluation,
) -> None:
    first, second = evaluation.models
    wins, losses = (
        evaluation.win_rate(*names, "texture") for names in ((first, second), (second, first))
    )
    assert wins is not None
    assert losses is not None
    assert wins.mean + losses.mean == pytest.approx(1)


def test_a_subset_has_the_samples_of_its_references_alone(evaluation: Evaluation) -> None:
    part = evaluation.subset(["dots--2", "lines--1"])
    assert [reference.id for reference in part.references] == ["dots--2", "lines--1"]
    assert {sample.reference for sample in part.samples} == {"dots--2", "lines--1"}
    assert len(part.samples) == len(evaluation.samples) // 2


def test_bootstrap_draws_whole_clusters() -> None:
    values = [1.0, 1.0, 1.0, 0.0]
    one = bootstrap(values, ["a", "a", "a", "a"])
    assert one is not None
    assert (one.mean, one.low, one.high) == (0.75, 0.75, 0.75)
    two = bootstrap(values, ["a", "a", "b", "b"], draws=4000)
    assert two is not None
    assert (two.mean, two.low, two.high) == (0.75, 0.5, 1.0)
    assert two == bootstrap(values, ["a", "a", "b", "b"], draws=4000)
    assert str(two) == "0.750 [0.500, 1.000]"


def test_bootstrap_covers_the_mean_of_a_normal_sample() -> None:
    numbers = np.random.default_rng(0).normal(2.0, 1.0, 400)
    estimate = bootstrap(numbers.tolist(), range(400), draws=4000)
    assert estimate is not None
    error = 1.96 * numbers.std() / math.sqrt(400)
    assert estimate.low == pytest.approx(numbers.mean() - error, abs=0.02)
    assert estimate.high == pytest.approx(numbers.mean() + error, abs=0.02)


def test_bootstrap_leaves_undefined_values_out() -> None:
    assert bootstrap([float("nan")] * 2, ["a", "b"]) is None
    estimate = bootstrap([float("nan"), 3.0], ["a", "b"])
    assert estimate is not None
    assert estimate.mean == 3.0


def test_every_model_draws_every_reference_prompt_and_seed(evaluation: Evaluation) -> None:
    keys = [(s.model, s.reference, s.prompt, s.seed) for s in evaluation.samples]
    assert len(keys) == len(set(keys)) == 2 * 4 * 2 * 2
    assert evaluation.models == ["styled", "plain"]
    assert keys[0] == ("styled", "dots--1", "a red apple", 0)


def test_scores_are_the_cosines_of_the_judge(
    evaluation: Evaluation, models: list[StyleModel]
) -> None:
    clip = models[0].clip
    assert clip is not None
    sample = evaluation.samples[5]
    reference = next(r for r in references() if r.id == sample.reference)
    image = clip.embed_images(clip.preprocess([sample.picture]))[0]
    text = clip.embed_texts([sample.prompt])[0]
    shown = clip.embed_images(clip.preprocess([reference.picture]))[0]
    assert sample.scores["clip_t"] == pytest.approx(float(image @ text), abs=1e-5)
    assert sample.scores["clip_i"] == pytest.approx(float(image @ shown), abs=1e-5)
    low, high = sorted([max(0.0, sample.scores["clip_t"]), max(0.0, sample.scores["texture"])])
    assert low <= sample.scores["harmonic"] <= high


def test_csd_and_dino_are_cosines_with_the_reference(
    models: list[StyleModel], tmp_path: Path
) -> None:
    clip, csd = models[0].clip, CsdEncoder.open(write_tiny_csd(tmp_path / "csd.pth"))
    dino = DinoEncoder.open(write_tiny_dino(tmp_path / "dino"))
    assert clip is not None
    evaluation = evaluate(models[:1], references(), ["a cat"], [0], clip=clip, csd=csd, dino=dino)
    for sample, reference in zip(evaluation.samples, references(), strict=True):
        for name, judge in (("csd", csd), ("dino", dino)):
            pixels = judge.preprocess([sample.picture, reference.picture])
            one, other = judge.embed_images(pixels)
            assert sample.scores[name] == pytest.approx(float(one @ other), abs=1e-5)
    assert list(evaluation.table()[0]) == ["model", *METRICS]
    assert len({round(sample.scores["csd"], 4) for sample in evaluation.samples}) == 4


def test_scores_without_their_model_are_none(evaluation: Evaluation) -> None:
    assert evaluation.rows()[0]["csd"] is None
    assert evaluation.rows()[0]["dino"] is None
    assert not {"csd", "dino"} & set(evaluation.table()[0])


def test_a_model_without_style_tokens_leaks_exactly_nothing(evaluation: Evaluation) -> None:
    """It draws the same picture for every reference."""
    estimate = evaluation.estimates("plain")["leakage"]
    assert estimate is not None
    assert estimate.mean == pytest.approx(0.0, abs=1e-6)


def test_the_leakage_of_a_copy_is_recorded(
    evaluation: Evaluation, models: list[StyleModel]
) -> None:
    clip = models[0].clip
    assert clip is not None
    shown = clip.embed_images(clip.preprocess([r.picture for r in references()]))
    expected = 1 - (float(shown[0] @ shown[1]) + float(shown[2] @ shown[3])) / 2
    assert evaluation.settings["leakage_basis"] == "siblings"
    assert evaluation.settings["leakage_if_copied"] == pytest.approx(expected, abs=1e-5)


def test_rows_hold_means_and_intervals(evaluation: Evaluation) -> None:
    row = evaluation.rows()[0]
    values = [s.scores["texture"] for s in evaluation.samples if s.model == "styled"]
    assert row["model"] == "styled"
    assert row["pictures"] == 16
    assert row["texture"]["mean"] == pytest.approx(sum(values) / 16)
    assert row["texture"]["low"] <= row["texture"]["mean"] <= row["texture"]["high"]
    json.dumps(evaluation.summary(), allow_nan=False)


def test_the_grid_has_a_block_for_each_model(evaluation: Evaluation) -> None:
    below, beside = evaluation.draw(cell_px=32), evaluation.draw(cell_px=32, blocks_across=2)
    assert below.height > 1.8 * beside.height
    assert beside.width > 1.5 * below.width


def test_leakage_compares_scenes_when_all_are_known(models: list[StyleModel]) -> None:
    clip = models[0].clip
    assert clip is not None
    shown = torch.nn.functional.normalize(torch.randn(3, 24), dim=-1)
    styles = [
        Reference("a", picture(0), "a", scene="a red apple"),
        Reference("b", picture(1), "b", scene="the cat"),
        Reference("c", picture(2), "c", scene="a red apple"),
    ]
    name, contents, others = choose_leakage_basis(styles, shown, clip)
    assert name == "scenes"
    torch.testing.assert_close(contents[1], clip.embed_texts(["the cat"])[0])
    assert others.tolist() == [[False, True, False], [True, False, True], [False, True, False]]
    name, contents, others = choose_leakage_basis([*styles[:2], references()[0]], shown, clip)
    assert name == "siblings"
    assert torch.equal(contents, shown)
    assert not others.any()


def test_what_is_missing_is_named(models: list[StyleModel]) -> None:
    clip: ClipEncoder | None = models[0].clip
    assert clip is not None
    with pytest.raises(UsageError, match="prompts: expected at least one, found none"):
        evaluate(models, references(), [], [0], clip=clip)
    with pytest.raises(UsageError, match="expected models of different names, found two"):
        evaluate([models[1], models[1]], references()[:1], ["x"], [0], clip=clip)


def test_styles_come_from_a_folder_with_notes(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "dots--1.png")
    picture(1).save(tmp_path / "lines.png")
    notes = tmp_path / "references.json"
    notes.write_text('[{"file": "lines.png", "scene": "a house", "held_out": true}]')
    dots, lines = load_styles(tmp_path)
    assert (dots.id, dots.style, dots.scene, dots.label) == ("dots--1", "dots", None, "dots--1")
    assert (lines.scene, lines.label) == ("a house", "lines (held out)")
    assert [one.id for one in load_styles(tmp_path / "lines.png")] == ["lines"]
    notes.write_text('[{"file": "lines.png", "held_out": "yes"}]')
    with pytest.raises(SourceError, match=r"references\.json: entry 0: held_out: expected bool"):
        load_styles(tmp_path)
    notes.write_text("{}")
    with pytest.raises(SourceError, match=r"references\.json: expected a list"):
        load_styles(tmp_path)
    notes.unlink()
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"broken\.png: expected an image"):
        load_styles(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="expected pictures"):
        load_styles(tmp_path / "empty")


def test_embedded_styles_are_known_by_name() -> None:
    everything = load_styles("mini")
    assert len({reference.style for reference in everything}) >= 16
    assert len({reference.style for reference in everything if reference.held_out}) >= 4
    assert all(reference.scene for reference in everything)
    mosaic = load_styles("mosaic")
    assert {reference.style for reference in mosaic} == {"mosaic"}
    assert load_styles(mosaic[0].id)[0].picture.tobytes() == mosaic[0].picture.tobytes()
    with pytest.raises(
        SourceError, match="no-such-style: expected a picture, a folder of pictures"
    ):
        load_styles("no-such-style")


def test_prompts_are_lines(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a dog\n\n# no prompt\n a cat \n")
    assert load_prompts(file) == ["a dog", "a cat"]
    file.write_text("\n")
    with pytest.raises(SourceError, match="expected one prompt per line"):
        load_prompts(file)
