"""The audit of settings: a recipe that is not the one that ran, and files that no stage wrote, are named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from builders.damaged_corpus import edit_entry

from stylear.curate.audit.scores import check_scores
from stylear.curate.audit.settings import check_committed, check_recipe
from stylear.curate.corpus.layout import RECIPE
from stylear.curate.corpus.parquet import read_table, write_table
from stylear.curate.recipe import load_recipe


@pytest.mark.parametrize(
    ("key", "value", "files"),
    [
        ("image.size", 32, ["fetch", "synthesize"]),
        ("filter.best_of", 2, ["filter", "pairs"]),
        ("mix.raw_per_stylized", 2.0, ["mix", "pairs"]),
        ("pairs.margin", 0.5, ["pairs"]),
        ("synthesize.contents", 5, ["synthesize"]),
        ("synthesize.settings.rounds", 9, ["synthesize"]),
    ],
)
def test_a_setting_that_is_not_the_one_that_ran_is_found(
    finished: Path, key: str, value: Any, files: list[str]
) -> None:
    assert list(check_recipe(finished, load_recipe(finished / RECIPE))) == []
    differences = list(check_recipe(finished, load_recipe(finished / RECIPE, {key: value})))
    assert [difference.file for difference in differences] == [
        f"ledger/{stage}/all.json" for stage in files
    ]
    assert {difference.expected for difference in differences} == {json.dumps(value)}
    assert all(
        key.endswith((difference.key or "").rpartition(".")[2]) for difference in differences
    )


def test_a_scorer_with_other_settings_is_found_in_each_shard(corpus: Path) -> None:
    edit_entry(
        corpus,
        "score.texture",
        "raw-00001",
        lambda entry: entry["settings"]["score"].update(type="csd"),
    )
    [difference] = check_recipe(corpus, load_recipe(corpus / RECIPE))
    assert difference.where == "ledger/score.texture/raw-00001.json score.type"
    assert (difference.expected, difference.found) == ('"texture"', '"csd"')


def test_a_ledger_that_names_other_bytes_than_the_manifest_is_found(corpus: Path) -> None:
    files = json.loads((corpus / "manifest.json").read_text())["files"]
    assert list(check_committed(corpus, files)) == []
    edit_entry(
        corpus, "mix", "all", lambda entry: entry["files"]["mix.parquet"].update(sha256="0" * 64)
    )
    [difference] = check_committed(corpus, files)
    assert difference.where == "ledger/mix/all.json mix.parquet"
    assert difference.expected.endswith(f"sha256 {files['mix.parquet']['sha256']}")


def test_an_output_that_no_stage_committed_is_found_though_the_manifest_lists_it(
    finished: Path,
) -> None:
    files = json.loads((finished / "manifest.json").read_text())["files"]
    files |= {"train/00009.tar": {"sha256": "0" * 64, "bytes": 1}}
    [difference] = check_committed(finished, files)
    assert (difference.kind, difference.where) == ("ledger", "manifest.json train/00009.tar")


def scores(corpus: Path) -> list[tuple[str, str]]:
    recipe = load_recipe(corpus / RECIPE)
    return [(difference.where, difference.expected) for difference in check_scores(corpus, recipe)]


def test_a_missing_score_table_is_found(corpus: Path) -> None:
    (corpus / "scores" / "texture" / "raw-00000.parquet").unlink()
    assert scores(corpus) == [("scores/texture/raw-00000.parquet", "a readable file")]


def test_scores_in_another_order_than_their_pairs_are_found(corpus: Path) -> None:
    path = corpus / "scores" / "texture" / "stylized-00000.parquet"
    table = read_table(path)
    write_table(path, table.take(list(reversed(range(len(table))))))
    assert scores(corpus) == [
        ("scores/texture/stylized-00000.parquet", "the keys of its shard, in order")
    ]


def test_scores_of_a_measurement_that_the_ledger_does_not_have_are_found(corpus: Path) -> None:
    edit_entry(corpus, "score.phash", "raw-00000", lambda entry: entry.update(weights=["abc"]))
    assert scores(corpus) == [
        ("scores/phash/raw-00000.parquet", "the fingerprint in its ledger entry abc")
    ]
    shutil.rmtree(corpus / "ledger" / "score.phash")
    assert len(scores(corpus)) == 6
