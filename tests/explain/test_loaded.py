"""Histories of many pairs from tables that are read once: the same as those of one pair at a time."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from stylear.curate import run as runner
from stylear.curate.corpus.answers import Answer, append_answer
from stylear.curate.corpus.parquet import read_table, write_table
from stylear.curate.explain.find import RowLocation
from stylear.curate.explain.history import PairHistoryReader
from stylear.curate.explain.loaded import LoadedTables
from stylear.curate.explain.tables import HistoryTables
from stylear.curate.recipe import load_recipe


def locations(corpus: Path) -> dict[str, RowLocation]:
    """Every pair by key."""
    return {
        key: RowLocation(kind, path.stem, row)
        for kind in ("raw", "stylized")
        for path in sorted((corpus / kind).glob("*.parquet"))
        for row, key in enumerate(read_table(path, ["key"])["key"].to_pylist())
    }


@pytest.fixture(scope="module")
def judged(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished corpus after thresholds, a percentile of each style, a quota and reviewers."""
    corpus = Path(shutil.copytree(finished, tmp_path_factory.mktemp("loaded") / "corpus"))
    keys = list(locations(corpus))
    for key in (keys[0], keys[-1]):
        append_answer(corpus, Answer("pair", key, "ada", "drop"))
    rules = {
        "filter.thresholds": [
            {"score": "texture", "min": 0.54},
            {"score": "texture", "percentile": 20, "within": "style"},
        ],
        "filter.per_style": 3,
        "filter.human": {"at_least": 1},
    }
    recipe = load_recipe(corpus / "recipe.yaml", rules)
    runner.run_stages(["filter", "mix", "pairs"], recipe, corpus, workers=1)
    day = pa.array([datetime(2026, 1, 2, tzinfo=UTC)], pa.timestamp("ms", tz="UTC"))
    table = pa.table({"key": keys[:1], "fetched_at": day})
    write_table(corpus / "fetched" / "00000.parquet", table)
    return corpus


def test_every_history_is_that_of_one_pair_at_a_time(judged: Path) -> None:
    pairs = locations(judged)
    assert len(pairs) == 41
    reader, many = (
        PairHistoryReader(t) for t in (HistoryTables(judged), LoadedTables(judged, pairs))
    )
    histories = {key: many.read_history(pair) for key, pair in pairs.items()}
    assert histories == {key: reader.read_history(pair) for key, pair in pairs.items()}
    reasons = {step["reason"] for reader in histories.values() for step in reader["stages"]}
    assert reasons >= {"not-an-image", "human-dropped", "texture-below-min", "not-best", "ratio",
                       "texture-below-percentile"}  # fmt: skip
    assert sum("fetched_at" in reader["origin"] for reader in histories.values()) == 1
    assert any(reader["preferences"] for reader in histories.values())


def test_tables_of_some_pairs_know_the_candidates_and_children_of_those(judged: Path) -> None:
    pairs = locations(judged)
    verdicts = read_table(judged / "verdicts.parquet").to_pylist()
    lost = next(row["key"] for row in verdicts if row["reason"] == "not-best")
    parent = next(key for key in pairs if HistoryTables(judged).children(key))
    some = PairHistoryReader(LoadedTables(judged, [lost, parent]))
    reader = PairHistoryReader(HistoryTables(judged))
    for key in (lost, parent):
        assert some.read_history(pairs[key]) == reader.read_history(pairs[key])
