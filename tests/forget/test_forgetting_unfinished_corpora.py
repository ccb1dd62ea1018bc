"""Pairs are forgotten out of unfinished corpora too, with what nobody has committed yet."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from builders.forgotten_corpus import pair_to_forget

from stylear.curate import run as runner
from stylear.curate.audit.auditor import audit
from stylear.curate.corpus.ledger import Ledger
from stylear.curate.corpus.shards import iter_pairs, read_shard
from stylear.curate.corpus.tombstones import read_tombstones
from stylear.curate.forget import forget_pairs
from stylear.curate.forget.request import Request
from stylear.curate.recipe import load_recipe
from stylear.errors import CorpusError


@pytest.fixture
def corpus(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "corpus"))


def unfinish(corpus: Path, *stages: str) -> None:
    """As if a run had been killed before these stages ended."""
    (corpus / "manifest.json").unlink()
    for stage in stages:
        (corpus / "ledger" / stage / "all.json").unlink()


def test_what_was_not_committed_is_removed(corpus: Path) -> None:
    raw, _ = pair_to_forget(corpus)
    unfinish(corpus, "filter", "mix", "pairs")
    (corpus / ".work" / "urls").mkdir(parents=True)
    forget_pairs(corpus, Request(sources=(raw.origin.source,)))
    for name in ("verdicts.parquet", "mix.parquet", "columns.parquet", "train/00000.tar", ".work"):
        assert not (corpus / name).exists()
    assert not (corpus / "manifest.json").exists()
    runner.run(load_recipe(corpus / "recipe.yaml"), corpus, workers=1)
    assert audit(corpus).passed


def test_what_was_only_planned_of_a_forgotten_pair_is_not_drawn(corpus: Path) -> None:
    unfinish(corpus, "synthesize", "filter", "mix", "pairs")
    (corpus / "ledger" / "synthesize" / "00002.json").unlink()
    for scorer in ("score.texture", "score.phash"):
        shutil.rmtree(corpus / "ledger" / scorer)
    late = list(read_shard(corpus / "stylized" / "00002.tar"))
    parents = {pair.origin.parent for pair in late}
    raw = next(pair for pair in iter_pairs(corpus / "raw") if pair.key in parents)
    planned = {pair.key for pair in late if pair.origin.parent == raw.key}
    forget_pairs(corpus, Request(sources=(raw.origin.source,)))
    assert planned <= read_tombstones(corpus).keys
    assert Ledger(corpus).units("synthesize") == ["00000", "00001"]
    runner.run(load_recipe(corpus / "recipe.yaml"), corpus, workers=1)
    assert audit(corpus).passed
    left = {pair.key: pair for pair in iter_pairs(corpus / "stylized")}
    assert len(left) == 24
    assert {left[key].verdict.reason for key in planned} == {"forgotten"}


def test_a_corpus_that_was_only_fetched_forgets(corpus: Path) -> None:
    raw, _ = pair_to_forget(corpus)
    (corpus / "manifest.json").unlink()
    for stage in (
        "synthesize",
        "synthesize.plan",
        "score.texture",
        "score.phash",
        "filter",
        "mix",
        "pairs",
    ):
        shutil.rmtree(corpus / "ledger" / stage)
    forget_pairs(corpus, Request(sources=(raw.origin.source,)))
    left = {pair.key: pair.verdict.reason for pair in iter_pairs(corpus / "raw")}
    assert left[raw.key] == "forgotten"
    runner.run(load_recipe(corpus / "recipe.yaml"), corpus, workers=1)
    assert audit(corpus).passed


def test_an_unfinished_retry_comes_first(corpus: Path) -> None:
    raw, _ = pair_to_forget(corpus)
    (corpus / ".retry").mkdir()
    with pytest.raises(CorpusError, match="a retry of downloads was not finished"):
        forget_pairs(corpus, Request(sources=(raw.origin.source,)))
    assert not (corpus / ".forget").exists()
