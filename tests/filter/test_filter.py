"""All rules together, and over a corpus."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from builders.filter_candidates import GREY, NAN, raw, reasons, recipe, stylized
from builders.pictures_folder import raw_pair, tree
from typer.testing import CliRunner

import stylear.curate.cli
from stylear.curate.corpus.layout import ShardKind, score_path
from stylear.curate.corpus.parquet import read_table, write_table
from stylear.curate.corpus.shards import write_shard
from stylear.curate.filter import filter_corpus
from stylear.curate.filter.gather import gather_rows
from stylear.curate.filter.rows import to_float64
from stylear.curate.recipe import dump_recipe
from stylear.errors import CorpusError
from stylear.pair import Origin, Pair

EXACT: dict[str, Any] = {"exact": True, "phash_distance": None}


def test_the_first_verdict_stands() -> None:
    failed = raw("a", 0.0, kept=False, stage="fetch", reason="timeout", image_sha256="s")
    twice = stylized("c", 0.0, image_sha256="s")
    pairs = [failed, stylized("b", 0.9, image_sha256="s"), twice]
    rules = {"thresholds": [{"score": "text", "min": 0.5}], "duplicates": EXACT}
    assert reasons(pairs, **rules) == {"a": "timeout", "b": None, "c": "duplicate"}
    assert (failed.stage, twice.stage) == ("fetch", "filter")


def test_every_rule_together_loses_no_pair_and_names_every_drop() -> None:
    draw = random.Random(7)
    pairs = []
    for number in range(400):
        make = draw.choice([raw, stylized])
        pair = make(
            f"{number:03d}",
            draw.choice([None, NAN, draw.random()]),
            group=None if make is raw else f"g{number // 4}",
            rank=draw.choice([None, draw.random()]),
            image_sha256=f"s{draw.randrange(150)}",
            phash=f"{draw.randrange(64):016x}",
            colour=GREY,
        )
        if draw.random() < 0.1:
            pair.kept, pair.stage, pair.reason = False, "fetch", "timeout"
        pairs.append(pair)
    gone = {pair.key for pair in pairs if not pair.kept}
    reason_of = reasons(
        pairs,
        thresholds=[{"score": "text", "min": 0.1, "percentile": 20}],
        best_of=2,
        duplicates={"exact": True, "phash_distance": 0},
    )
    assert len(reason_of) == 400
    assert all((pair.reason is None) == pair.kept for pair in pairs)
    assert {pair.key for pair in pairs if pair.stage == "fetch"} == gone
    assert set(reason_of.values()) == {
        None, "timeout", "duplicate", "near-duplicate", "not-best", "text-not-a-number",
        "text-below-min", "text-below-percentile",
    }  # fmt: skip


def stylized_pair(number: int, candidate: int) -> Pair:
    source = raw_pair(100 + 10 * number + candidate)
    origin = Origin(
        "stylized",
        "synthesizer:test",
        f"content {number}",
        parent=raw_pair(number).key,
        reference="mosaic",
        reference_sha256="0" * 64,
        details={"group": f"group {number}"},
    )
    return Pair(source.key, source.caption, source.image, origin)


def write_scores(corpus: Path, kind: ShardKind, pairs: list[Pair], **columns: list[Any]) -> None:
    """Score files of shard 0: text, style; hashes that are far from each other."""
    keys = [pair.key for pair in pairs]
    for name, values in columns.items():
        table = pa.table({"key": keys, name: pa.array(values, pa.float32())})
        write_table(score_path(corpus, name, kind, 0), table)
    hashes = [f"{(2**8 - 1) << 8 * n:016x}" for n in range(len(pairs))]
    table = pa.table({"key": keys, "phash": hashes, "colour": [GREY] * len(pairs)})
    write_table(score_path(corpus, "phash", kind, 0), table)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three raw pairs, one without an image, and two groups of two candidates, with scores."""
    pairs = [raw_pair(0), raw_pair(1), raw_pair(2, image=False)]
    write_shard(tmp_path / "raw", 0, pairs)
    write_scores(tmp_path, "raw", pairs, text=[0.5, 0.25, None], style=[None] * 3)
    pairs = [stylized_pair(n, candidate) for n in (0, 1) for candidate in (0, 1)]
    write_shard(tmp_path / "stylized", 0, pairs)
    text, style = [0.5, 0.25, 0.7, 0.75], [0.5, 0.75, 0.7, 0.25]
    write_scores(tmp_path, "stylized", pairs, text=text, style=style)
    return tmp_path


def verdicts(corpus: Path) -> list[tuple[bool, str | None, str | None]]:
    rows = read_table(corpus / "verdicts.parquet").to_pylist()
    return [(row["kept"], row["stage"], row["reason"]) for row in rows]


def test_a_corpus_is_judged_pair_by_pair(corpus: Path) -> None:
    table = filter_corpus(corpus, recipe(best_of=1))
    keep, lose = (True, None, None), (False, "filter", "not-best")
    assert verdicts(corpus) == [keep, keep, (False, "fetch", "timeout"), keep, lose, keep, lose]
    ranks = [0.5, 0.25, None, 0.5, 0.375, pytest.approx(0.7), 0.375]
    assert table["rank"].to_pylist() == ranks
    assert table["group"].to_pylist() == [None] * 3 + ["group 0"] * 2 + ["group 1"] * 2
    assert table.column_names == [
        "key", "kept", "stage", "reason", "group", "duplicate_of", "rank", "score.text", "score.style",
    ]  # fmt: skip


def test_another_threshold_touches_no_image(corpus: Path) -> None:
    """There are no tars left that could be touched."""
    for path in corpus.rglob("*.tar"):
        path.unlink()
    before = {path: path.read_bytes() for path in corpus.rglob("*.parquet")}
    filter_corpus(corpus, recipe(thresholds=[{"score": "text", "min": 0.5}]))
    assert [kept for kept, _, _ in verdicts(corpus)] == [
        True,
        False,
        False,
        True,
        False,
        True,
        True,
    ]
    filter_corpus(corpus, recipe(thresholds=[{"score": "text", "min": 0.2}]))
    assert [kept for kept, _, _ in verdicts(corpus)] == [True, True, False, True, True, True, True]
    assert {path: path.read_bytes() for path in before} == before


def test_a_score_that_equals_the_threshold_as_written_is_kept(corpus: Path) -> None:
    """0.7 as a 32-bit float lies below 0.7; scores are compared with the decimals they have."""
    filter_corpus(corpus, recipe(thresholds=[{"score": "text", "min": 0.7}]))
    assert [reason for _, _, reason in verdicts(corpus)][3:] == [
        "text-below-min", "text-below-min", None, None,
    ]  # fmt: skip
    filter_corpus(corpus, recipe(thresholds=[{"score": "text", "max": 0.7}]))
    assert [reason for _, _, reason in verdicts(corpus)][5:] == [None, "text-above-max"]


def test_scores_come_back_with_their_decimals_and_gaps(corpus: Path) -> None:
    pairs = [raw_pair(0), raw_pair(1), raw_pair(2, image=False)]
    write_scores(corpus, "raw", pairs, text=[0.12345, NAN, None], style=[None] * 3)
    scores = gather_rows(corpus, recipe())[1].scores["text"].slice(0, 3)
    assert to_float64(scores)[0] == 0.12345
    assert np.isnan(to_float64(scores)).tolist() == [False, True, True]
    assert scores.is_valid().to_pylist() == [True, True, False]


def test_a_dry_run_prints_the_funnel_and_writes_nothing(corpus: Path) -> None:
    (corpus / "recipe.yaml").write_text(dump_recipe(recipe(best_of=1)))
    before = tree(corpus)
    words = ["filter", "--out", str(corpus), "--dry-run", "--json"]
    words += ["--set", "filter.thresholds=[{score: text, min: 0.3}]"]
    done = CliRunner().invoke(stylear.curate.cli.app, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {
        "funnel": [
            {"verdict": "kept", "raw": 1, "stylized": 2, "pairs": 3},
            {"verdict": "not-best", "raw": 0, "stylized": 1, "pairs": 1},
            {"verdict": "text-below-min", "raw": 1, "stylized": 1, "pairs": 2},
            {"verdict": "timeout", "raw": 1, "stylized": 0, "pairs": 1},
        ],
        "kept": {"pairs": 3, "contents": 3, "styles": 1},
    }
    assert tree(corpus) == before


def test_missing_and_strange_scores_are_named(corpus: Path) -> None:
    path = score_path(corpus, "style", "stylized", 0)
    table = read_table(path)
    write_table(path, table.slice(1))
    with pytest.raises(
        CorpusError, match=r"style/stylized-00000\.parquet: its pairs differ from those"
    ):
        filter_corpus(corpus, recipe())
    write_table(path, table.rename_columns(["key", "other"]))
    with pytest.raises(CorpusError, match=r"expected a column 'style', found key, other"):
        filter_corpus(corpus, recipe())
    path.unlink()
    with pytest.raises(CorpusError, match=r"expected scores, found none") as caught:
        filter_corpus(corpus, recipe())
    assert caught.value.hint == "run `stylear curate score` on this corpus first"
    assert not (corpus / "verdicts.parquet").exists()


def test_a_key_that_is_raw_and_stylized_is_refused(corpus: Path) -> None:
    pairs = [raw_pair(0), raw_pair(1)]
    write_shard(corpus / "stylized", 0, pairs)
    write_scores(corpus, "stylized", pairs, text=[0.5] * 2, style=[0.5] * 2)
    with pytest.raises(
        CorpusError, match="expected unique keys, found 2 twice in raw and stylized"
    ):
        filter_corpus(corpus, recipe())


def test_the_same_input_gives_the_same_verdicts_file(corpus: Path) -> None:
    filter_corpus(corpus, recipe(best_of=1))
    first = (corpus / "verdicts.parquet").read_bytes()
    filter_corpus(corpus, recipe(best_of=2))
    assert (corpus / "verdicts.parquet").read_bytes() != first
    filter_corpus(corpus, recipe(best_of=1))
    assert (corpus / "verdicts.parquet").read_bytes() == first
    assert json.loads(read_table(corpus / "raw/00000.parquet")["details"][0].as_py())["place"] == 0
