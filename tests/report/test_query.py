"""Queries: SQL over the tables of a corpus, and nothing else that SQL could do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders.pictures_folder import tree
from typer.testing import CliRunner

import stylear.curate.cli
from stylear.curate.corpus.parquet import write_table
from stylear.curate.query import query
from stylear.errors import UsageError


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two raw pairs in two shards, one stylized, verdicts; a file beside the corpus."""
    import pyarrow as pa

    folder = tmp_path / "corpus"
    for kind, index, keys in (("raw", 0, ["a"]), ("raw", 1, ["b"]), ("stylized", 0, ["c"])):
        table = pa.table({"key": keys, "kind": [kind] * len(keys)})
        write_table(folder / kind / f"{index:05d}.parquet", table)
    columns: dict[str, Any] = {"key": ["a", "b", "c"], "kept": [True, False, True]}
    columns["score.text"] = pa.array([0.5, float("nan"), None], pa.float32())
    write_table(folder / "verdicts.parquet", pa.table(columns))
    (folder / "recipe.yaml").write_text("name: test\n")
    (tmp_path / "secret.csv").write_text("word\nsecret\n")
    return folder


def test_tables_join_over_all_shards(corpus: Path) -> None:
    sql = "select key, kind, kept from pairs join verdicts using (key) order by key"
    assert query(corpus, sql) == [
        {"key": "a", "kind": "raw", "kept": True},
        {"key": "b", "kind": "raw", "kept": False},
        {"key": "c", "kind": "stylized", "kept": True},
    ]


def test_a_corpus_with_quotes_in_its_path_is_queried(corpus: Path) -> None:
    moved = corpus.rename(corpus.parent / "it's a [corpus]*")
    assert query(moved, "select count(*) as n from pairs") == [{"n": 3}]


def test_values_are_those_that_json_has(corpus: Path) -> None:
    assert [row["score.text"] for row in query(corpus, "select * from verdicts")] == [
        0.5,
        None,
        None,
    ]
    sql = "select date '2020-01-02' d, 1.5::decimal(4, 2) n, 'ab'::blob b, [1, 2] l, {'x': 'nan'::float} s"
    assert query(corpus, sql) == [
        {"d": "2020-01-02", "n": "1.50", "b": "6162", "l": [1, 2], "s": {"x": None}}
    ]


def test_the_command_prints_json(corpus: Path) -> None:
    sql = "with kept as (select * from verdicts where kept) select count(*) as n from kept"
    done = CliRunner().invoke(stylear.curate.cli.app, ["query", str(corpus), sql, "--json"])
    assert (done.exit_code, json.loads(done.stdout)) == (0, [{"n": 2}])


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select * from read_text('{secret}')", r"file system operations are disabled"),
        ("select * from read_csv('{secret}')", r"file system operations are disabled"),
        ("select * from '{secret}'", r"file system operations are disabled"),
        ("select * from tables", r"Table with name tables does not exist"),  # a variable of ours
        ("select * from glob('/*')", r"file system operations are disabled"),
        ("select * from read_parquet('{corpus}/other.parquet')", r"operations are disabled"),
        ("select * from read_text('{corpus}/recipe.yaml')", r"operations are disabled"),
        ("copy (select 1) to '{corpus}/new.csv'", r"expected a SELECT, found COPY"),
        ("attach '{corpus}/new.db'", r"expected a SELECT, found ATTACH"),
        ("set enable_external_access = true", r"expected a SELECT, found SET"),
        ("create table t as select 1", r"expected a SELECT, found CREATE"),
        ("install httpfs", r"expected a SELECT, found LOAD"),
        ("select 1; select 2", r"expected one SELECT, found 2 statements"),
        ("", r"expected one SELECT, found 0 statements"),
        ("selec 1", r"Parser Error: syntax error"),
        ("select * from corpus", r"Table with name corpus does not exist"),
        ("select nothing from verdicts", r'"nothing" not found'),
    ],
)
def test_a_query_reads_nothing_else_and_changes_nothing(
    corpus: Path, sql: str, message: str
) -> None:
    before = tree(corpus.parent)
    with pytest.raises(UsageError, match=message) as caught:
        query(corpus, sql.format(secret=corpus.parent / "secret.csv", corpus=corpus))
    assert "secret\n" not in str(caught.value)
    assert tree(corpus.parent) == before


def test_the_error_names_the_tables_that_there_are(corpus: Path) -> None:
    with pytest.raises(UsageError) as caught:
        query(corpus, "select * from mix")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("tables of this corpus: pairs, verdicts;")
