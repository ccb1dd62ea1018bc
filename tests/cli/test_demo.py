"""The demo: what it serves, its recipe and settings, and its page."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from builders.html_page import Page
from builders.pictures_folder import make_folders, make_recipe
from PIL import Image

from stylear.curate import run as runner
from stylear.curate.fetch.loopback import serve
from stylear.curate.recipe import load_recipe
from stylear.curate.references import load_references
from stylear.demo import page as demo_page
from stylear.demo import workflow as demo
from stylear.embedded import find_manifest
from stylear.evaluation.evaluate import METRICS, Evaluation, Sample
from stylear.mini.styles import (
    HELD_OUT_FAMILIES,
    HOUSE_FAMILIES,
    TRAIN_FAMILIES,
    UNSEEN_FAMILIES,
)
from stylear.sampling.references import Reference, load_styles
from stylear.train.settings import DpoSettings, PairsSettings, SftSettings, load_settings


def test_the_list_names_what_is_served_and_three_urls_that_fail(tmp_path: Path) -> None:
    folder = demo.write_served_folder(tmp_path / "server")
    assert len(list(folder.glob("*.png"))) == demo.SERVED
    text = demo.write_url_list(folder, "http://127.0.0.1:1").read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == demo.SERVED + 3
    assert sum((folder / row["url"].rsplit("/", 1)[-1]).suffix == ".png" for row in rows) == 25
    assert all(row["caption"] for row in rows)


def test_the_demo_downloads_for_real_and_drops_three_with_reasons(tmp_path: Path) -> None:
    folder = demo.write_served_folder(tmp_path / "server")
    with serve(folder) as url:
        source = demo.make_url_source(demo.write_url_list(folder, url))
        recipe = load_recipe(find_manifest("demo"), {"raw.1": source, "raw.0.limit": 4})
        result = runner.run_stages(["fetch"], recipe, tmp_path / "corpus", workers=1)[0]
    assert (result.rows_in, result.kept) == (demo.SERVED + 7, demo.SERVED + 4)
    assert result.dropped == {"http-404": 1, "not-an-image": 1, "not-public-address": 1}


def test_the_corpus_has_house_styles_alone_and_none_of_the_references_that_are_evaluated() -> None:
    used = load_references(load_recipe(find_manifest("demo")))
    assert {reference.style for reference in used} == set(HOUSE_FAMILIES)
    assert len(used) == 12
    evaluated = [load_styles(name)[0] for name in [*demo.HOUSE, *demo.UNSEEN]]
    assert not {reference.id for reference in used} & {reference.id for reference in evaluated}
    assert not {r.scene for r in used} & {r.scene for r in evaluated}
    assert {load_styles(name)[0].style for name in demo.UNSEEN} == set(UNSEEN_FAMILIES)


def test_no_shipped_model_was_trained_on_a_style_that_the_demo_draws() -> None:
    drawn = {*HOUSE_FAMILIES, *UNSEEN_FAMILIES}
    assert drawn == set(HELD_OUT_FAMILIES)
    assert not drawn & set(TRAIN_FAMILIES)


def test_the_judge_of_the_textures_took_no_part_in_filter_or_pairs() -> None:
    recipe = load_recipe(find_manifest("demo"))
    assert "texture" not in {score.type for score in recipe.score}
    pairs = load_settings(PairsSettings, find_manifest("train-demo-pairs"), {})
    assert pairs.judge == "mini-clip"


def test_the_settings_of_the_demo_are_read() -> None:
    sft = load_settings(SftSettings, find_manifest("train-demo-sft"), {})
    dpo = load_settings(DpoSettings, find_manifest("train-demo-dpo"), {})
    pairs = load_settings(PairsSettings, find_manifest("train-demo-pairs"), {})
    assert sft.model == "mini-stylear"
    assert dpo.model == pairs.model == str(sft.out)
    assert dpo.pairs == (pairs.out,)


def test_a_step_that_was_done_before_keeps_its_seconds(tmp_path: Path) -> None:
    path = tmp_path / "seconds.json"
    path.write_text(json.dumps({"corpus": 42.0}))
    timer = demo.StepTimer(path)
    with timer.step("corpus", "stylear curate run"):
        pass
    assert timer.seconds["corpus"] == 42.0
    assert json.loads(path.read_text()) == timer.seconds


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo folder with a corpus and the curves of two short runs."""
    place = tmp_path_factory.mktemp("demo")
    make_folders(place)
    runner.run(make_recipe(place), place / "corpus", workers=1)
    for name, values in (
        ("sft", {"loss": 3.0, "validation_loss": 3.5}),
        ("dpo", {"loss": 0.6, "margin": 0.1, "chosen_log_prob": -1.0, "rejected_log_prob": -2.0}),
    ):
        (place / name).mkdir()
        lines = [json.dumps({"step": step, **values}) for step in (1, 2)]
        (place / name / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return place


def test_the_page_is_whole_and_shows_every_model_reference_and_prompt(out: Path) -> None:
    picture = Image.new("RGB", (8, 8), "red")
    references = [
        Reference("batik--h4", picture, "batik", held_out=True),
        Reference("pixel--h4", picture, "pixel", held_out=True),
    ]
    prompts = ["a cat", "<script>alert(1)</script>"]
    evaluation = Evaluation(references, prompts, {})
    for model in ("shipped", "after SFT"):
        for reference in references:
            for prompt in prompts:
                scores = dict.fromkeys(METRICS, 0.5)
                evaluation.samples.append(Sample(model, reference.id, prompt, 0, picture, scores))
    parts = demo.split_evaluation(evaluation)
    page = demo_page.write_page(out, evaluation, parts, {"corpus": 12.3}).read_text("utf-8")
    found = Page(page)
    grids = Page(page[: page.index('<h2 id="measured"')])
    pictures = grids.attributes("img", "alt")
    assert len(pictures) == 2 * 2 * (
        1 + 2
    )  # references, prompts, and the reference beside two models
    assert pictures[:3] == [
        "Style reference batik",
        "shipped: a cat, in the style of batik",
        "after SFT: a cat, in the style of batik",
    ]
    assert "after SFT against shipped" in found.texts
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert found.table("step") == [["corpus", "12"]]
    assert [tag for tag, _, _ in found.headings].count("h1") == 1
    assert [name for tag, _, name in found.headings if tag == "h2"] == [
        "What each step changes", "Measured", "Training", "Time", "Corpus tiny", "Funnel", "Scores",
        "Diversity", "Raw pairs", "Styles", "Preference pairs", "Licences and opt-outs", "Versions",
        "Files", "Recipe",
    ]  # fmt: skip
    links = [link for link in found.attributes("a", "href") if not link.startswith("#")]
    files = {link.partition("#")[0] for link in links}
    assert all((out / file).is_file() for file in files)
    assert {"corpus/train/00000.tar", "corpus/report/pairs.html"} <= files
