"""The orchestrator: what a run makes, skips, redoes and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from builders.pictures_folder import make_folders, make_recipe, settings, tree, write_recipe
from typer.testing import CliRunner

import stylear.curate.cli
from stylear.curate import run as runner
from stylear.curate.corpus.layout import STAGES
from stylear.curate.corpus.ledger import Ledger, lock_corpus
from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.shards import iter_pairs, read_samples
from stylear.curate.recipe import Recipe, load_recipe
from stylear.errors import (
    CorpusError,
    CorpusLocked,
    SettingsChanged,
    SourceError,
    StylearError,
    UsageError,
)

runner_cli = CliRunner()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders, a recipe, and the corpus that it makes."""
    root = tmp_path_factory.mktemp("run")
    make_folders(root)
    runner.run(make_recipe(root), root / "corpus", workers=1)
    return root


@pytest.fixture
def built(home: Path, tmp_path: Path) -> Path:
    """A copy of that corpus to do things to; its sources are those of `home`."""
    return Path(shutil.copytree(home / "corpus", tmp_path / "corpus"))


def changed(home: Path, **changes: Any) -> Recipe:
    return load_recipe(write_recipe(home, settings(**changes), "changed.yaml"))


def keys(path: Path, **where: Any) -> list[str]:
    return [
        row["key"]
        for row in read_table(path).to_pylist()
        if all(row[name] == value for name, value in where.items())
    ]


def files_of(corpus: Path) -> dict[str, bytes]:
    return tree(corpus, (".lock", "manifest.json", "recipe.yaml", "index.html"))


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
    moved = {path.name for path in before if same[path] != before[path]}
    assert moved <= {".lock", ".recipe-folder.json", "manifest.json", "index.html"}


def test_stages_run_alone_make_the_same_corpus(home: Path, tmp_path: Path) -> None:
    recipe = make_recipe(home)
    for stage, following in zip(STAGES, [*STAGES[1:], None], strict=True):
        if following is not None:
            with pytest.raises(CorpusError, match=r"finished|scored|none of|expected"):
                runner.run_stages([following], recipe, tmp_path / "corpus", workers=1)
        runner.run_stages([stage], recipe, tmp_path / "corpus", workers=1)
    expected = tree(home / "corpus", (".lock", "index.html"))
    assert tree(tmp_path / "corpus", (".lock", "index.html")) == expected


# --- what is redone, and what stops -----------------------------------------------------------


def test_a_lost_shard_is_made_again(built: Path, home: Path) -> None:
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
    made = {result.stage: result.new for result in done.results}
    assert made == {"fetch": 0, "synthesize": 0, "score": 0, "filter": 1, "mix": 1, "pairs": 1}
    assert len(keys(built / "verdicts.parquet", kept=True)) == 48
    back = runner.run(make_recipe(home), built, workers=1)
    assert back.results[3].new == 1
    assert tree(built) == tree(home / "corpus")


def test_a_rule_that_changes_no_verdict_mixes_nothing_again(built: Path, home: Path) -> None:
    before = tree(built / "train")
    filtered = settings()["filter"] | {"per_style": 1000, "duplicates": {"phash_distance": 3}}
    done = runner.run(changed(home, filter=filtered), built, workers=1)
    made = {result.stage: result.new for result in done.results}
    assert made == {"fetch": 0, "synthesize": 0, "score": 0, "filter": 1, "mix": 0, "pairs": 1}
    assert tree(built / "train") == before


EXPENSIVE = [
    ({"image": {"size": 24}}, r"fetch 0000\d was made another way: image\.size: 32 -> 24", "fetch"),
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
    with pytest.raises(SettingsChanged, match="what it is made of has changed"):
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


# --- bad input --------------------------------------------------------------------------------


def test_bad_pictures_are_dropped_with_a_reason_and_the_rest_stays(tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=14)
    (tmp_path / "photos" / "p003.png").write_bytes(b"not a picture")
    (tmp_path / "photos" / "p004.png").write_bytes(b"")
    data = (tmp_path / "photos" / "p005.png").read_bytes()
    (tmp_path / "photos" / "p005.png").write_bytes(data[:-60])
    results = runner.run_stages(["fetch"], make_recipe(tmp_path), tmp_path / "corpus", workers=1)
    assert (results[0].rows_in, results[0].kept) == (14, 11)
    assert sum(results[0].dropped.values()) == 3
    assert {"not-an-image", "corrupt-image"} <= set(results[0].dropped)


def test_nothing_kept_is_told_with_the_reasons(tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=2)
    for path in (tmp_path / "photos").glob("*.png"):
        path.write_bytes(b"not a picture")
    with pytest.raises(SourceError, match=r"none of 2 pairs can be used: not-an-image 2"):
        runner.run(make_recipe(tmp_path), tmp_path / "corpus", workers=1)


def test_a_corpus_that_another_run_writes_is_refused_and_untouched(built: Path, home: Path) -> None:
    before = tree(built)
    with (
        lock_corpus(built),
        pytest.raises(CorpusLocked, match="another process is writing this corpus"),
    ):
        runner.run(make_recipe(home), built, workers=1, redo="filter")
    assert tree(built) == before


def test_an_empty_folder_is_a_source_error(tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=0)
    with pytest.raises(SourceError, match="photos"):
        runner.run(make_recipe(tmp_path), tmp_path / "corpus", workers=1)


def test_a_folder_of_other_things_is_not_taken_for_a_corpus(home: Path) -> None:
    with pytest.raises(UsageError, match="expected a corpus or an empty folder, found"):
        runner.run(make_recipe(home), home / "photos", workers=1)
    with pytest.raises(UsageError, match="found a file"):
        runner.run(make_recipe(home), home / "recipe.yaml", workers=1)


def test_a_damaged_shard_is_named_not_scored(built: Path, home: Path) -> None:
    path = built / "raw" / "00001.tar"
    data = bytearray(path.read_bytes())
    data[600] ^= 255
    path.write_bytes(data)
    with pytest.raises(CorpusError, match=r"raw/00001\.tar"):
        runner.run_stages(["score"], make_recipe(home), built, workers=1, redo="score")


# --- the command line -------------------------------------------------------------------------


def call(*words: str) -> tuple[int, str, StylearError | None]:
    result = runner_cli.invoke(stylear.curate.cli.app, list(words))
    error = result.exception
    if error is not None and not isinstance(error, (StylearError, SystemExit)):
        raise error
    return result.exit_code, result.stdout, error if isinstance(error, StylearError) else None


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.mark.usefixtures("quiet")
def test_the_commands_print_data_on_stdout(built: Path, home: Path) -> None:
    recipe, out = str(home / "recipe.yaml"), str(built)
    code, text, _ = call("run", recipe, "--out", out, "--workers", "1", "--json")
    told = json.loads(text)
    assert code == 0
    assert [stage["stage"] for stage in told["stages"]] == list(STAGES)
    assert Path(told["report"]).is_file()
    for stage in STAGES:
        code, text, _ = call(stage, "--out", out, "--json")
        told = json.loads(text)
        results = told["stages"] if stage == "filter" else told
        assert (code, [result["stage"] for result in results]) == (0, [stage])
    code, text, _ = call("run", recipe, "--out", out, "--dry-run")
    assert code == 0
    assert text.splitlines()[-6].split()[:2] == ["fetch", "3"]
    code, text, _ = call("filter", recipe, "--out", out, "--set", "filter.best_of=2")
    assert code == 0
    assert Ledger(built).entries("filter")[0].settings["filter"]["best_of"] == 2


MISTAKES = [
    (["run", "none.yaml", "--out", "x"], 2, "No such file"),
    (["run", "{home}/recipe.yaml", "--out", "{home}/photos"], 2, "expected a corpus or an empty"),
    (["run", "{home}/recipe.yaml", "--out", "x", "--set", "seed"], 2, "expected KEY=VALUE"),
    (["run", "{home}/recipe.yaml", "--out", "x", "--set", "sead=1"], 2, "sead: unknown key"),
    (
        ["run", "{home}/recipe.yaml", "--out", "{corpus}", "--redo", "fech"],
        2,
        "--redo: expected one of",
    ),
    (
        ["run", "{home}/recipe.yaml", "--out", "{corpus}", "--set", "image.size=16"],
        1,
        "image.size: 32 -> 16",
    ),
    (["score", "--out", "{home}/nowhere"], 1, "expected a corpus"),
    (["mix", "{home}/recipe.yaml", "--out", "{home}/new"], 1, "is not finished"),
    (["audit", "{home}/nowhere"], 1, "nowhere"),
    (["report", "{home}/nowhere"], 1, "nowhere"),
]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("words", "exit_code", "message"), MISTAKES, ids=lambda value: str(value)[:40]
)
def test_mistakes_are_one_line_with_the_right_exit_code(
    home: Path, built: Path, words: list[str], exit_code: int, message: str
) -> None:
    _, _, error = call(*(word.format(home=home, corpus=built) for word in words))
    assert error is not None
    assert error.exit_code == exit_code
    assert message in error.message
    assert "\n" not in error.message


@pytest.mark.usefixtures("quiet")
def test_audit_tells_a_changed_corpus_from_an_untouched_one(built: Path) -> None:
    code, _, error = call("audit", str(built))
    assert (code, error) == (0, None)
    path = built / "train" / "00000.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    code, text, error = call("audit", str(built))
    assert code == 1 or (error is not None and error.exit_code == 1)
    assert "train/00000.tar" in text + (error.message if error else "")
