"""Two corpora are compared pair by pair: where each ended, what was scored, and what the recipes say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.written_corpus import web_pair, write_corpus
from typer.testing import CliRunner

from stylear.curate import run as runner
from stylear.curate.cli import app
from stylear.curate.corpus.ledger import Ledger
from stylear.curate.corpus.parquet import read_table, write_table
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.diff import diff_corpora
from stylear.curate.recipe import load_recipe
from stylear.errors import CorpusError

LIMIT = 0.545


@pytest.fixture(scope="module")
def stricter(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished corpus under one more threshold."""
    corpus = Path(shutil.copytree(finished, tmp_path_factory.mktemp("diff") / "stricter"))
    rules = {"filter.thresholds": [{"score": "texture", "min": LIMIT}]}
    runner.run_stages(
        ["filter", "mix", "pairs"], load_recipe(corpus / "recipe.yaml", rules), corpus, workers=1
    )
    return corpus


def outcomes(corpus: Path) -> dict[str, str]:
    """Where each pair ended, told by hand."""
    outcomes_by_key = {}
    for row in read_table(corpus / "verdicts.parquet").to_pylist():
        outcomes_by_key[row["key"]] = "kept" if row["kept"] else f"{row['stage']}: {row['reason']}"
    for row in read_table(corpus / "mix.parquet").to_pylist():
        outcomes_by_key[row["key"]] = row["split"] or f"mix: {row['reason']}"
    return outcomes_by_key


def test_a_corpus_does_not_differ_from_its_copy(finished: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "copy"))
    diff = diff_corpora(finished, copy)
    assert diff.is_empty
    assert diff.common == 41
    assert list(diff.changed_pairs()) == []
    assert [(row["score"], row["pairs"], row["mean_shift"]) for row in diff.scores] == [
        ("texture", 24, 0.0)
    ]


def test_the_recipe_keys_that_differ_are_named(finished: Path, stricter: Path) -> None:
    keys = {row["key"]: (row["a"], row["b"]) for row in diff_corpora(finished, stricter).recipe}
    assert keys["filter.thresholds.0.min"] == (None, str(LIMIT))
    assert keys["filter.thresholds.0.score"] == (None, '"texture"')
    assert all(key.startswith("filter.thresholds") for key in keys)


def test_every_pair_that_ended_differently_is_counted_and_listed(
    finished: Path, stricter: Path
) -> None:
    before, after = outcomes(finished), outcomes(stricter)
    expected = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    assert len(expected) > 2
    diff = diff_corpora(finished, stricter)
    listed = list(diff.changed_pairs())
    assert {row["key"]: (row["a"], row["b"]) for row in listed} == expected
    assert sum(row["pairs"] for row in diff.pairs) == len(expected)
    for row in diff.pairs:
        alike = [
            one
            for one in listed
            if (one["kind"], one["a"], one["b"]) == (row["kind"], row["a"], row["b"])
        ]
        assert len(alike) == row["pairs"]
    assert ("train", "filter: texture-below-min") in {(row["a"], row["b"]) for row in listed}


def test_the_counts_of_each_stage_are_listed_where_they_differ(
    finished: Path, stricter: Path
) -> None:
    counts = {(row["stage"], row["count"]): row for row in diff_corpora(finished, stricter).counts}
    entries = [Ledger(corpus).entry("filter", "all") for corpus in (finished, stricter)]
    assert None not in entries
    a, b = (entry.kept for entry in entries if entry is not None)
    assert counts["filter", "kept"] == {
        "stage": "filter", "count": "kept", "a": a, "b": b, "change": b - a,
    }  # fmt: skip
    assert counts["filter", "texture-below-min"]["a"] == 0
    assert not [stage for stage, _ in counts if stage in ("fetch", "synthesize")]


def test_a_style_that_lost_all_its_pairs_is_lost(finished: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    table = read_table(corpus / "mix.parquet")
    styles = {
        p.key: (p.origin.reference or "").split("--")[0] for p in iter_pairs(corpus / "stylized")
    }
    rows = [row for row in table.to_pylist() if styles.get(row["key"]) != "cold"]
    write_table(corpus / "mix.parquet", type(table).from_pylist(rows, schema=table.schema))
    cold = sum(
        row["split"] is not None and styles.get(row["key"]) == "cold" for row in table.to_pylist()
    )
    assert diff_corpora(finished, corpus).styles == [
        {"style": "cold", "a": cold, "b": 0, "change": "lost"}
    ]
    assert diff_corpora(corpus, finished).styles == [
        {"style": "cold", "a": 0, "b": cold, "change": "gained"}
    ]


def test_scores_are_compared_over_the_pairs_that_both_scored(
    finished: Path, tmp_path: Path
) -> None:
    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    path = corpus / "scores" / "texture" / "stylized-00001.parquet"
    table = read_table(path)
    column = table["texture"].to_pylist()
    changed = [None, *(round(value + 0.25, 5) for value in column[1:])]
    rows: dict[str, Any] = {"key": table["key"], "texture": changed}
    write_table(path, type(table).from_pydict(rows, schema=table.schema))
    [row] = diff_corpora(finished, corpus).scores
    pairs = read_table(finished / "verdicts.parquet", ["key", "score.texture"]).to_pylist()
    scored = {
        pair["key"]: pair["score.texture"] for pair in pairs if pair["score.texture"] is not None
    }
    del scored[table["key"][0].as_py()]
    shift = dict.fromkeys(table["key"].to_pylist()[1:], 0.25)
    before = np.round(np.array(list(scored.values()), float), 5)
    after = before + np.array([shift.get(key, 0.0) for key in scored])
    assert (row["pairs"], row["changed"]) == (23, 7)
    assert row["mean_shift"] == round(7 * 0.25 / 23, 5)
    for side, values in (("a", before), ("b", after)):
        assert row[side]["mean"] == pytest.approx(values.mean(), abs=1e-5)
        assert row[side]["q05"] == pytest.approx(np.quantile(values, 0.05), abs=1e-5)
        assert row[side]["q95"] == pytest.approx(np.quantile(values, 0.95), abs=1e-5)


def test_pairs_that_one_side_lacks_are_absent_there(tmp_path: Path) -> None:
    pairs = [web_pair(f"https://pictures.example/{n}.png", n) for n in range(5)]
    lost = pairs[3].drop("fetch", "http-404")
    a = write_corpus(tmp_path / "a", [pairs[:3], pairs[3:4]])
    b = write_corpus(tmp_path / "b", [[*pairs[1:3], lost, pairs[4]]])
    diff = diff_corpora(a, b)
    assert diff.common == 3
    assert [tuple(row.values()) for row in diff.changed_pairs()] == [
        (pairs[0].key, "raw", "kept so far", "absent"),
        (pairs[3].key, "raw", "kept so far", "fetch: http-404"),
        (pairs[4].key, "raw", "absent", "kept so far"),
    ]
    assert diff.unfinished == [str(a), str(b)]


def test_verdicts_of_other_pairs_are_an_error(finished: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    table = read_table(corpus / "verdicts.parquet")
    write_table(corpus / "verdicts.parquet", table.slice(1))
    with pytest.raises(
        CorpusError, match=r"verdicts\.parquet: expected verdicts of the corpus's pairs"
    ):
        diff_corpora(finished, corpus)


def test_the_command_prints_tables_or_json(finished: Path, stricter: Path) -> None:
    arguments = ["diff", str(finished), str(stricter), "--list"]
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    printed = json.loads(result.stdout)
    assert {row["key"] for row in printed["changed_pairs"]} == {
        row["key"] for row in diff_corpora(finished, stricter).changed_pairs()
    }
    assert printed["common"] == 41
    words = CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
    assert "filter: not-best" in words
    assert f"{printed['changed_pairs'][0]['key']}  " in words
    same = CliRunner().invoke(app, ["diff", str(finished), str(finished)], catch_exceptions=False)
    assert same.stdout == "no difference in 41 pairs\n"
