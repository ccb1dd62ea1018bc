"""columns.parquet: a dry run reads it alone, and decides what a real run decides."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.filter_candidates import recipe
from builders.pictures_folder import tree
from builders.random_candidates import random_pairs, random_rules
from typer.testing import CliRunner

import stylear.curate.cli
from stylear.curate.corpus.layout import COLUMNS, KINDS, RECIPE, score_path
from stylear.curate.corpus.ledger import Ledger, StageInputs
from stylear.curate.corpus.object_store import corpus_path
from stylear.curate.corpus.parquet import read_table, rows_to_table, write_table
from stylear.curate.corpus.records import TYPES, canonical_json
from stylear.curate.corpus.storage import FileInfo
from stylear.curate.filter import (
    apply_rules,
    count_funnel,
    load_rows,
    measure_all_diversity,
    read_diversity,
    step,
)
from stylear.curate.filter.gather import gather_rows
from stylear.curate.filter.table import read_columns
from stylear.curate.query import query
from stylear.curate.recipe import Recipe, dump_recipe
from stylear.curate.stage import Build


def table(draw: random.Random, kind: str, index: int) -> tuple[pa.Table, dict[str, pa.Table]]:
    """The table of a shard at random, and its scores."""
    pairs = [pair for pair in random_pairs(draw, 120) if pair.kind == kind]
    rows = [
        dict.fromkeys(TYPES)
        | {name: getattr(pair, name) for name in vars(pair) if name in TYPES}
        | {"key": f"{pair.key}-{kind}-{index}", "caption": pair.content}
        | {"details": canonical_json({"group": f"{pair.group}-{index}"} if pair.group else {})}
        for pair in pairs
    ]
    keys = [row["key"] for row in rows]
    scores = {
        name: pa.table({"key": keys, name: pa.array([p.scores[name] for p in pairs], pa.float32())})
        for name in ("text", "style")
    }
    hashes = {"phash": [p.phash for p in pairs], "colour": [p.colour for p in pairs]}
    scores["phash"] = pa.table({"key": keys, **hashes})
    return rows_to_table({name: [row[name] for row in rows] for name in TYPES}), scores


def write_corpus(corpus: Path, draw: random.Random) -> Path:
    """Two shards of either kind, scored and in the ledger; no tars."""
    ledger = Ledger(corpus)
    inputs = StageInputs({}, "1")

    def commit(stage: str, unit: str, path: Path, written: pa.Table) -> None:
        write_table(path, written)
        files = {path.relative_to(corpus).as_posix(): FileInfo.of(path)}
        rows = written.num_rows
        ledger.commit(stage, unit, inputs, rows_in=rows, kept=rows, dropped={}, files=files)

    for kind, stage in zip(KINDS, ("fetch", "synthesize"), strict=True):
        total = 0
        for index in range(2):
            rows, scores = table(draw, kind, index)
            total += rows.num_rows
            commit(stage, f"{index:05d}", corpus / kind / f"{index:05d}.parquet", rows)
            for name, column in scores.items():
                path = score_path(corpus, name, kind, index)
                commit(f"score.{name}", path.stem, path, column)
        ledger.commit(stage, "all", inputs, rows_in=total, kept=total, dropped={}, files={})
    return corpus


def make_recipe(**rules: Any) -> Recipe:
    """A recipe with stylized pairs."""
    values = recipe(**rules).model_dump(mode="json", exclude={"synthesize"})
    return Recipe.model_validate(values | {"references": [{"type": "mini"}]})


def real(corpus: Path, loaded: Recipe) -> list[dict[str, Any]]:
    """The verdicts of a filter run."""
    step.run(Build(corpus, loaded))
    verdicts: list[dict[str, Any]] = read_table(corpus / "verdicts.parquet").to_pylist()
    return verdicts


def dry_run(corpus: Path, *words: str) -> Any:
    """What a dry run prints as JSON."""
    done = CliRunner().invoke(
        stylear.curate.cli.app, ["filter", "--out", str(corpus), "--dry-run", "--json", *words]
    )
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", random.Random(5))


@pytest.fixture
def columns_only(corpus: Path) -> Path:
    """Filtered, then everything gone but the recipe, the ledger and the columns."""
    (corpus / RECIPE).write_text(dump_recipe(make_recipe()))
    real(corpus, make_recipe(duplicates={"exact": True, "phash_distance": 4}))
    for name in ("raw", "stylized", "scores"):
        shutil.rmtree(corpus / name)
    (corpus / "verdicts.parquet").unlink()
    return corpus


@pytest.mark.parametrize("seed", range(12))
def test_a_dry_run_says_what_a_run_decides(seed: int, tmp_path: Path) -> None:
    """Random corpus, first filtered by one set of rules, then tried and filtered by another."""
    draw = random.Random(seed)
    corpus = write_corpus(tmp_path / "corpus", draw)
    first, second = make_recipe(**random_rules(draw)), make_recipe(**random_rules(draw))
    if draw.random() < 0.3:
        second = make_recipe(**random_rules(draw), text_score="style", style_score="text")
    (corpus / RECIPE).write_text(dump_recipe(first))
    real(corpus, first)
    copy = shutil.copytree(corpus, tmp_path / "copy")
    for name in ("raw", "stylized", "scores"):
        shutil.rmtree(copy / name)
    before = tree(copy)
    changes = second.filter.model_dump(mode="json")
    tried = dry_run(copy, "--set", f"filter={json.dumps(changes)}")
    assert tree(copy) == before
    verdicts = real(corpus, second)
    counts: dict[str, list[int]] = {"kept": [0, 0]}
    kinds = [kind for kind in KINDS for i in range(2) for _ in range(rows_of(corpus, kind, i))]
    for verdict, kind in zip(verdicts, kinds, strict=True):
        row = counts.setdefault(verdict["reason"] or "kept", [0, 0])
        row[kind == "stylized"] += 1
    kept = counts.pop("kept")
    expected = [("kept", kept), *sorted(counts.items())]
    assert tried["funnel"] == [
        {"verdict": name, "raw": raw, "stylized": stylized, "pairs": raw + stylized}
        for name, (raw, stylized) in expected
    ]
    assert tried["kept"]["pairs"] == sum(kept) > 0


def rows_of(corpus: Path, kind: str, index: int) -> int:
    return read_table(corpus / kind / f"{index:05d}.parquet", ["key"]).num_rows


@pytest.mark.parametrize("seed", range(12))
def test_rows_read_back_decide_each_pair_as_rows_gathered(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    corpus = write_corpus(tmp_path / "corpus", draw)
    real(corpus, make_recipe(**random_rules(draw)))
    loaded = make_recipe(**random_rules(draw), text_score=draw.choice([None, "style"]))
    rows = read_columns(corpus, loaded)
    assert rows is not None
    [read, gathered] = [
        apply_rules(r, loaded.filter) for r in (rows, gather_rows(corpus, loaded)[1])
    ]
    assert read.kept.tolist() == gathered.kept.tolist()
    assert read.reason.array().to_pylist() == gathered.reason.array().to_pylist()
    assert read.duplicate_of.tolist() == gathered.duplicate_of.tolist()
    assert 0 < read.kept.sum() < len(read)


def test_a_dry_run_reads_neither_shards_nor_scores(columns_only: Path) -> None:
    printed = dry_run(columns_only, "--set", "filter.best_of=1", "--diversity")
    assert sum(row["pairs"] for row in printed["funnel"]) > 200
    assert "not-best" in [row["verdict"] for row in printed["funnel"]]
    assert [row["kind"] for row in printed["diversity"][:3]] == ["all", "raw", "stylized"]


def test_other_distances_and_rankings_need_no_shards(columns_only: Path) -> None:
    for changes in ({"phash_distance": 2}, {"phash_distance": None}):
        assert read_columns(columns_only, make_recipe(duplicates=changes)) is not None
    assert read_columns(columns_only, make_recipe(text_score="style")) is not None


def test_a_file_of_other_scores_is_not_read(corpus: Path) -> None:
    """Scores that came after it, or were taken away, change what a run would decide."""
    loaded = make_recipe()
    real(corpus, loaded)
    assert read_columns(corpus, loaded) is not None
    entry = corpus / "ledger" / "score.text" / "raw-00001.json"
    text = entry.read_text()
    entry.unlink()
    assert read_columns(corpus, loaded) is None
    Ledger(corpus).commit(
        "score.text",
        "raw-00001",
        StageInputs({"x": 1}, "1"),
        rows_in=1,
        kept=1,
        dropped={},
        files={},
    )
    assert read_columns(corpus, loaded) is None
    entry.write_text(text[:20])  # damaged
    assert read_columns(corpus, loaded) is None
    entry.write_text(text)
    assert read_columns(corpus, loaded) is not None
    third = [*loaded.model_dump(mode="json")["score"], {"name": "more", "type": "texture"}]
    other = Recipe.model_validate(
        loaded.model_dump(mode="json", exclude={"synthesize"}) | {"score": third}
    )
    assert read_columns(corpus, other) is None


def test_a_corpus_without_a_ledger_is_gathered(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = make_recipe(best_of=1)
    real(corpus, loaded)
    expected = count_funnel(apply_rules(load_rows(corpus, loaded), loaded.filter))
    shutil.rmtree(corpus / "ledger")
    assert read_columns(corpus, loaded) is None
    assert count_funnel(apply_rules(load_rows(corpus, loaded), loaded.filter)) == expected
    assert "columns.parquet is missing or outdated" in capsys.readouterr().err


def test_a_file_of_several_row_groups_gives_the_same_rows(corpus: Path) -> None:
    """More than a million rows are written as several groups, each with words of its own."""
    loaded = make_recipe(best_of=1, per_style=5, duplicates={"exact": True, "phash_distance": 4})
    real(corpus, loaded)
    expected = apply_rules(load_rows(corpus, loaded), loaded.filter)
    path = corpus / COLUMNS
    pq.write_table(pq.read_table(path), path, row_group_size=17)
    assert pq.ParquetFile(path).num_row_groups > 10
    decided = apply_rules(load_rows(corpus, loaded), loaded.filter)
    assert decided.kept.tolist() == expected.kept.tolist()
    assert decided.reason.array().to_pylist() == expected.reason.array().to_pylist()


def test_the_same_corpus_gives_the_same_file(corpus: Path, tmp_path: Path) -> None:
    real(corpus, make_recipe())
    again = write_corpus(tmp_path / "again", random.Random(5))
    real(again, make_recipe())
    for name in (COLUMNS, "verdicts.parquet", "diversity.json"):
        assert (corpus / name).read_bytes() == (again / name).read_bytes()
    assert np.all(
        read_table(corpus / COLUMNS, ["key"])["key"] == read_table(again / COLUMNS)["key"]
    )


def test_the_filter_commits_its_files_and_prints_the_diversity(corpus: Path) -> None:
    (corpus / RECIPE).write_text(dump_recipe(make_recipe()))
    real(corpus, make_recipe())
    assert sorted(Ledger(corpus).entries("filter")[0].files) == [
        "columns.parquet", "diversity.json", "verdicts.parquet",
    ]  # fmt: skip
    rows = json.loads((corpus / "diversity.json").read_text())
    assert [(row["kind"], row["style"]) for row in rows] == [
        ("all", None), ("raw", None), ("stylized", None),
        *(("stylized", f"style{n}") for n in range(3)),
    ]  # fmt: skip


def test_a_dry_run_measures_the_diversity_that_a_run_writes(corpus: Path) -> None:
    loaded = make_recipe(best_of=1, per_style=9)
    scores = [loaded.score[0], loaded.score[1].model_copy(update={"type": "nearest"})]
    loaded = loaded.model_copy(update={"score": tuple(scores)})
    real(corpus, loaded)
    written = read_diversity(corpus)
    rows = load_rows(corpus, loaded, diversity=True)
    assert rows.scores.keys() == {"style"}
    assert measure_all_diversity(apply_rules(rows, loaded.filter), loaded) == written
    assert [row["pairs"] for row in written[3:]] == [9, 9, 9]
    assert all(0 < row["nearest"] < 1 and row["vendi"] > 1 for row in written[2:])


def test_a_corpus_in_a_store_is_read_from_its_columns_too(corpus: Path) -> None:
    loaded = make_recipe(best_of=1, duplicates={"exact": True, "phash_distance": 4})
    real(corpus, loaded)
    place = write_corpus(corpus_path("memory://filter-columns"), random.Random(5))
    real(place, loaded)
    for name in (COLUMNS, "verdicts.parquet"):
        assert (place / name).read_bytes() == (corpus / name).read_bytes()
    rows = read_columns(place, loaded)
    assert rows is not None
    assert count_funnel(apply_rules(rows, loaded.filter)) == count_funnel(
        apply_rules(load_rows(corpus, loaded), loaded.filter)
    )
    sql = "select count(*) as n from verdicts join pairs using (key)"
    assert query(place, sql) == query(corpus, sql) == [{"n": len(rows)}]
