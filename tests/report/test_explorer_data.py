"""The explorer's chunks hold exactly the rows of the corpus's tables, its pictures and its histories."""

from __future__ import annotations

import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders.explorer_report import Explorer, read_pictures
from builders.finished_corpus import STYLES
from PIL import Image

from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.explain.find import find_pairs
from stylear.curate.explain.history import explain
from stylear.curate.report import write_report
from stylear.curate.report.explorer.chunks import make_json
from stylear.curate.report.explorer.rows import sample_pairs
from stylear.curate.report.explorer.write import write_explorer
from stylear.curate.report.facts import read_facts
from stylear.pair import Pair


@pytest.fixture(scope="module")
def corpus(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished corpus with its report."""
    copy = shutil.copytree(finished, tmp_path_factory.mktemp("explorer") / "corpus")
    write_report(Path(copy))
    return Path(copy)


@pytest.fixture(scope="module")
def explorer(corpus: Path) -> Explorer:
    return Explorer(corpus / "report")


@pytest.fixture(scope="module")
def pairs(corpus: Path) -> list[Pair]:
    """All pairs in the order of the corpus."""
    return [pair for kind in ("raw", "stylized") for pair in iter_pairs(corpus / kind)]


def test_texts_and_columns_are_those_of_the_pairs(explorer: Explorer, pairs: list[Pair]) -> None:
    assert len(pairs) == explorer.corpus["pairs"] == explorer.corpus["shown"] == 41
    assert explorer.texts("key") == [pair.key for pair in pairs]
    assert explorer.texts("caption") == [pair.caption for pair in pairs]
    assert explorer.texts("source") == [pair.origin.source for pair in pairs]
    assert explorer.columns["kind"].tolist() == [p.origin.kind == "stylized" for p in pairs]
    references = explorer.words("reference", [r["id"] for r in explorer.corpus["references"]])
    assert references == [pair.origin.reference for pair in pairs]
    styles = explorer.words("style", explorer.corpus["styles"])
    assert styles == [(p.origin.reference or "").split("--")[0] or None for p in pairs]
    keys = explorer.texts("key")
    assert explorer.words("parent", keys) == [pair.origin.parent for pair in pairs]
    groups = [p.origin.details.get("group") for p in pairs]
    codes = explorer.columns["group"].tolist()
    assert len({*zip(codes, groups, strict=True)}) == len(set(groups)) == len(set(codes)) == 13


def test_outcomes_are_those_of_the_verdicts_and_the_mix(corpus: Path, explorer: Explorer) -> None:
    outcomes = explorer.words("outcome", explorer.corpus["outcomes"])
    outcome_of = dict(zip(explorer.texts("key"), outcomes, strict=True))
    expected = {}
    for row in read_table(corpus / "verdicts.parquet").to_pylist():
        expected[row["key"]] = (row["stage"], row["reason"])
    for row in read_table(corpus / "mix.parquet").to_pylist():
        expected[row["key"]] = (row["split"] or "mix", row["reason"])
    assert {
        key: (outcome["stage"], outcome["reason"]) for key, outcome in outcome_of.items()
    } == expected
    assert {("train", None), ("val", None), ("fetch", "not-an-image"), ("mix", "ratio")} <= {
        *expected.values()
    }
    counts = {(o["stage"], o["reason"]): o["pairs"] for o in explorer.corpus["outcomes"]}
    assert counts == {o: [*expected.values()].count(o) for o in {*expected.values(), *counts}}


def test_scores_are_the_bits_of_the_verdicts(corpus: Path, explorer: Explorer) -> None:
    table = read_table(corpus / "verdicts.parquet")
    scores = table["score.texture"].to_pylist()
    expected = np.array([math.nan if score is None else score for score in scores], np.float32)
    assert [*explorer.scores] == ["texture"]
    np.testing.assert_array_equal(explorer.scores["texture"], expected)
    assert np.isnan(expected).sum() == 17


def test_every_history_is_that_of_explain(corpus: Path, explorer: Explorer) -> None:
    for key, history in zip(explorer.texts("key"), explorer.histories(), strict=True):
        assert history == make_json(explain(corpus, find_pairs(corpus, key))[0])


def test_pictures_are_those_of_the_pairs(explorer: Explorer, pairs: list[Pair]) -> None:
    for row, pair in enumerate(pairs):
        stored = explorer.picture(row)
        assert (stored is None) == (not pair.image)
        if stored is not None:
            with Image.open(io.BytesIO(stored)) as drawn, Image.open(io.BytesIO(pair.image)) as own:
                assert drawn.convert("RGB").tobytes() == own.convert("RGB").tobytes()
    assert sum(not pair.image for pair in pairs) == 1


def test_references_are_listed_with_their_split_and_picture(explorer: Explorer) -> None:
    references = explorer.corpus["references"]
    size = explorer.corpus["rows_of"]["pictures"]
    assert [reference["id"] for reference in references] == sorted(STYLES)
    for reference in references:
        chunk = explorer.corpus["pictures"][reference["picture"] // size]
        with Image.open(
            io.BytesIO(read_pictures(explorer.report, chunk)[reference["picture"] % size])
        ):
            assert reference["split"] in ("train", "val")


def test_thresholds_are_those_of_the_histograms(finished: Path, tmp_path: Path) -> None:
    from stylear.curate import run as runner
    from stylear.curate.recipe import load_recipe

    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    rules = {"filter.thresholds": [{"score": "texture", "min": 0.25}]}
    runner.run_stages(
        ["filter", "mix", "pairs"], load_recipe(corpus / "recipe.yaml", rules), corpus
    )
    write_report(corpus)
    (score,) = Explorer(corpus / "report").corpus["scores"]
    assert score == {"name": "texture", "limits": [[0.25, "min 0.25"]]}


def test_the_folder_holds_what_the_page_reads_and_nothing_else(explorer: Explorer) -> None:
    names = {"corpus", "rows", "scores", "texts-0", "histories-0", *explorer.corpus["pictures"]}
    files = {path.relative_to(explorer.report).as_posix() for path in explorer.report.rglob("*.*")}
    assert files == {"index.html", "pairs.html", *(f"data/{name}.js" for name in names)}


def test_pictures_that_exist_are_kept_and_others_removed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylear.curate.report.explorer import pictures

    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    write_report(corpus)
    before = {path.name: path.read_bytes() for path in (corpus / "report/data").iterdir()}
    (corpus / "report/data/pictures-0123.js").write_text("of an earlier corpus")
    monkeypatch.setattr(pictures, "draw_shard", None)
    write_report(corpus)
    assert {p.name: p.read_bytes() for p in (corpus / "report/data").iterdir()} == before


def test_a_large_corpus_is_sampled_by_content(finished: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    facts = read_facts(corpus)
    chosen = sample_pairs(facts, 20)
    contents = facts.pairs.content.to_pylist()
    assert len(chosen) == 20
    others = {contents[row] for row in set(range(41)) - set(chosen.tolist())}
    assert max(contents[row] for row in chosen) <= min(others)
    write_explorer(facts, corpus / "report", limit=20)
    explorer = Explorer(corpus / "report")
    keys = facts.pairs.key.to_pylist()
    assert (explorer.corpus["pairs"], explorer.corpus["shown"]) == (41, 20)
    assert explorer.texts("key") == [keys[row] for row in chosen]
    assert [history["key"] for history in explorer.histories()] == explorer.texts("key")
    own = {pair.key: pair for kind in ("raw", "stylized") for pair in iter_pairs(corpus / kind)}
    for row, key in enumerate(explorer.texts("key")):
        stored = explorer.picture(row)
        assert (stored is None) == (own[key].image == b"")
        if stored is not None:
            with Image.open(io.BytesIO(stored)) as drawn:
                assert (
                    drawn.convert("RGB").tobytes()
                    == Image.open(io.BytesIO(own[key].image)).convert("RGB").tobytes()
                )


def test_numbers_that_a_browser_would_round_are_texts() -> None:
    value = {"seed": 2**62 + 1, "small": 2**53 - 1, "score": math.nan, "list": [-math.inf, True]}
    assert make_json(value) == {
        "seed": "4611686018427387905", "small": 2**53 - 1, "score": "nan", "list": ["-inf", True],
    }  # fmt: skip
    assert json.loads(json.dumps(make_json(value), allow_nan=False)) == make_json(value)


def test_a_pair_costs_few_bytes(finished: Path, tmp_path: Path) -> None:
    """What the page reads before it shows a pair, and its texts, for 20,000 pairs."""
    from stylear.curate.report.explorer.chunks import write_array_chunk
    from stylear.curate.report.explorer.rows import COLUMNS, read_rows
    from stylear.curate.report.explorer.write import write_texts

    rows = read_rows(read_facts(finished))
    times = 20_000 // len(rows) + 1
    count = times * len(rows)
    draw = np.random.default_rng(0)
    many = replace(
        rows,
        indices=np.arange(count),
        columns={name: np.tile(column, times) for name, column in rows.columns.items()},
        keys=[draw.bytes(16).hex() for _ in range(count)],
        captions=[f"a photo of thing number {n} outside" for n in range(count)],
        sources=[f"https://example.org/pictures/{n}.jpg" for n in range(count)],
    )
    write_array_chunk(tmp_path, "rows", [many.columns[name] for name in COLUMNS])
    write_array_chunk(tmp_path, "scores", [draw.random(count).astype(np.float32)])
    names = write_texts(many, tmp_path)
    assert len(names) == 10

    def size(name: str) -> float:
        return (tmp_path / "data" / f"{name}.js").stat().st_size / count

    assert size("rows") < 1
    assert size("scores") < 6
    assert sum(map(size, names)) < 60
