"""The orchestrator: what a run makes, skips, redoes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders.pictures_folder import make_folders, make_recipe, settings, tree, write_recipe
from typer.testing import CliRunner

from stylear.curate import run as runner
from stylear.curate.corpus.layout import STAGES
from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.shards import iter_pairs, read_samples
from stylear.curate.recipe import Recipe, load_recipe
from stylear.errors import (
    CorpusError,
    SettingsChanged,
)

runner_cli = CliRunner()


def changed(home: Path, **changes: Any) -> Recipe:
    return load_recipe(write_recipe(home, settings(**changes), "changed.yaml"))


def keys(path: Path, **where: Any) -> list[str]:
    return [
        row["key"]
        for row in read_table(path).to_pylist()
        if all(row[name] == value for name, value in where.items())
    ]


def files_of(corpus: Path) -> dict[str, bytes]:
    return tree(corpus, (".lock", "manifest.json", "recipe.yaml", "report"))


# --- what a run makes -------------------------------------------------------------------------


def test_no_pair_is_lost_between_stages(home: Path) -> None:
    corpus = home / "corpus"
    raw = [pair.key for pair in iter_pairs(corpus / "raw")]
    stylized = [pair.key for pair in iter_pairs(corpus / "stylized")]
    assert (len(raw), len(stylized)) == (24, 24)
    assert keys(corpus / "verdicts.parquet") == raw + stylized
    kept = keys(corpus / "verdicts.parquet", kept=True)
    assert keys(corpus / "mix.parquet") == kept
    for split in ("train", "val"):
        mixed = [pair.key for pair in iter_pairs(corpus / split)]
        assert sorted(mixed) == sorted(keys(corpus / "mix.parquet", split=split))
        assert mixed
        assert [sample["key"] for sample in read_samples(corpus / split)] == mixed


def test_the_manifest_answers_for_every_file(home: Path) -> None:
    corpus = home / "corpus"
    manifest = json.loads((corpus / "manifest.json").read_text())
    files = {
        name for name in tree(corpus, (".lock", "manifest.json")) if not name.startswith("report/")
    }
    assert set(manifest["files"]) == files
    counts = manifest["counts"]
    assert counts["pairs"] == counts["raw"] + counts["stylized"] > 0
    assert counts["pairs"] == sum(split["pairs"] for split in manifest["splits"].values())
    assert manifest["stages"]["fetch"] == {"units": 3, "rows": 24, "kept": 24, "dropped": {}}
    assert manifest["stages"]["synthesize"]["rows"] == 24
    assert manifest["ratio"]["asked"] == 1.0
    assert "T" not in manifest["versions"]["python"]


def test_a_second_run_makes_nothing_and_touches_nothing(built: Path, home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*") if path.is_file()}
    done = runner.run(make_recipe(home), built, workers=1)
    assert {result.stage: result.new for result in done.results} == dict.fromkeys(STAGES, 0)
    same = {path: path.stat().st_mtime_ns for path in before}
    moved = {path.relative_to(built) for path in before if same[path] != before[path]}
    outside = {path.name for path in moved if path.parts[0] != "report"}
    assert outside <= {".lock", ".recipe-folder.json", "manifest.json"}
    assert not [path for path in moved if path.name.startswith("pictures-")]


def test_stages_run_alone_make_the_same_corpus(home: Path, tmp_path: Path) -> None:
    recipe = make_recipe(home)
    for stage, following in zip(STAGES, [*STAGES[1:], None], strict=True):
        if following is not None:
            with pytest.raises(CorpusError, match=r"finished|scored|none of|expected"):
                runner.run_stages([following], recipe, tmp_path / "corpus", workers=1)
        runner.run_stages([stage], recipe, tmp_path / "corpus", workers=1)
    expected = tree(home / "corpus", (".lock", "report"))
    assert tree(tmp_path / "corpus", (".lock", "report")) == expected


# --- what is redone, and what stops -----------------------------------------------------------


def test_a_lost_shard_is_rebuilt(built: Path, home: Path) -> None:
    expected = tree(built)
    for name in ("raw/00001.tar", "stylized/00002.parquet", "scores/texture/raw-00000.parquet"):
        (built / name).unlink()
    (built / "train" / "00000.tar").write_bytes(b"")
    done = runner.run(make_recipe(home), built, workers=1)
    assert {result.stage: result.new for result in done.results} == {
        "fetch": 1, "synthesize": 1, "score": 1, "filter": 0, "mix": 1, "pairs": 0,
    }  # fmt: skip
    assert tree(built) == expected


def test_cheap_settings_are_redone_without_touching_a_shard(built: Path, home: Path) -> None:
    recipe = changed(home, filter={"best_of": None, "duplicates": {"phash_distance": None}})
    done = runner.run(recipe, built, workers=1)
    new = {result.stage: result.new for result in done.results}
    assert new == {"fetch": 0, "synthesize": 0, "score": 0, "filter": 1, "mix": 1, "pairs": 1}
    assert len(keys(built / "verdicts.parquet", kept=True)) == 48
    back = runner.run(make_recipe(home), built, workers=1)
    assert back.results[3].new == 1
    assert tree(built) == tree(home / "corpus")


def test_a_rule_that_changes_no_verdict_mixes_nothing_again(built: Path, home: Path) -> None:
    before = tree(built / "train")
    filtered = settings()["filter"] | {"per_style": 1000, "duplicates": {"phash_distance": 3}}
    done = runner.run(changed(home, filter=filtered), built, workers=1)
    new = {result.stage: result.new for result in done.results}
    assert new == {"fetch": 0, "synthesize": 0, "score": 0, "filter": 1, "mix": 0, "pairs": 1}
    assert tree(built / "train") == before


EXPENSIVE = [
    (
        {"image": {"size": 24}},
        r"fetch 0000\d was built differently: image\.size: 32 -> 24",
        "fetch",
    ),
    (
        {"synthesize": {**settings()["synthesize"], "candidates": 3}},
        r"synthesize\.candidates: 2 -> 3",
        "synthesize",
    ),
    (
        {"synthesize": {**settings()["synthesize"], "settings": {"levels": 2}}},
        r"synthesize\.settings\.levels: 3 -> 2",
        "synthesize",
    ),
    (
        {"score": [{"name": "texture", "type": "phash"}], "filter": {}},
        r'score\.type: "texture" -> "phash"',
        "score",
    ),
]


@pytest.mark.parametrize(
    ("change", "message", "stage"), EXPENSIVE, ids=lambda value: str(value)[:30]
)
def test_expensive_settings_stop_before_anything_is_written(
    built: Path, home: Path, change: dict[str, Any], message: str, stage: str
) -> None:
    before = tree(built)
    with pytest.raises(SettingsChanged, match=message) as caught:
        runner.run(changed(home, **change), built, workers=1)
    assert f"--redo {stage}" in (caught.value.hint or "")
    assert tree(built) == before


def test_redo_makes_a_stage_and_what_follows_again(built: Path, home: Path, tmp_path: Path) -> None:
    spec = {**settings()["synthesize"], "contents": 5, "settings": {"levels": 2}}
    recipe = changed(home, synthesize=spec)
    done = runner.run(recipe, built, workers=1, redo="synthesize")
    assert {result.stage: result.new for result in done.results}["fetch"] == 0
    runner.run(recipe, tmp_path / "fresh", workers=1)
    assert tree(built) == tree(tmp_path / "fresh")


def test_a_new_scorer_scores_alone(built: Path, home: Path) -> None:
    scores = [*settings()["score"], {"name": "second", "type": "texture"}]
    done = runner.run(changed(home, score=scores), built, workers=1)
    assert {result.stage: result.new for result in done.results}["score"] == 3 + 4
    assert "second" in {path.name for path in (built / "scores").iterdir()}


def test_sources_that_changed_stop_the_run(tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=12)
    recipe = make_recipe(tmp_path)
    runner.run_stages(["fetch"], recipe, tmp_path / "corpus", workers=1)
    (tmp_path / "photos" / "p003.png").unlink()
    with pytest.raises(SettingsChanged, match=r"1 changed \(folder:photos/p003\.png\)"):
        runner.run_stages(["fetch"], recipe, tmp_path / "corpus", workers=1)
    done = runner.run_stages(["fetch"], recipe, tmp_path / "corpus", workers=1, redo="fetch")
    assert (done[0].rows_in, done[0].dropped) == (12, {"missing-file": 1})


def test_a_recipe_without_references_makes_a_raw_corpus(tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=12)
    values = settings(references=[], score=[])
    del values["synthesize"]
    runner.run(make_recipe(tmp_path, values), tmp_path / "corpus", workers=1)
    manifest = json.loads((tmp_path / "corpus" / "manifest.json").read_text())
    assert (manifest["counts"]["raw"], manifest["counts"]["stylized"]) == (12, 0)
    assert manifest["ratio"]["raw_per_stylized"] is None
