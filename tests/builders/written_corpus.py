"""A corpus of given raw pairs, written shard by shard without a source, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from builders.pictures_folder import encoded, settings, write_recipe
from stylear.curate.corpus.ledger import ALL, Ledger, StageInputs
from stylear.curate.corpus.shards import shard_name, write_shard
from stylear.curate.stage import make_corpus_paths
from stylear.pair import Origin, Pair, content_id, digest

MADE = StageInputs({}, "test")


def web_pair(url: str, number: int, **details: str) -> Pair:
    """A downloaded pair."""
    caption = f"thing number {number}"
    origin = Origin("raw", url, content_id(caption), f"{number:064x}", details=details)
    return Pair(digest("url", url, caption), caption, encoded(number), origin)


def write_corpus(corpus: Path, shards: Sequence[Sequence[Pair]], *, finished: bool = True) -> Path:
    """raw/ with these shards, their ledger entries and a recipe; `finished`: and that of the stage."""
    ledger = Ledger(corpus)
    for number, pairs in enumerate(shards):
        info = write_shard(corpus / "raw", number, pairs)
        files = make_corpus_paths(corpus, corpus / "raw", info.files)
        ledger.commit(
            "fetch", shard_name(number), MADE,
            rows_in=info.rows, kept=info.kept, dropped=info.dropped, files=files,
        )  # fmt: skip
    if finished:
        rows = sum(map(len, shards))
        ledger.commit("fetch", ALL, MADE, rows_in=rows, kept=rows, dropped={}, files={})
    values = settings(raw=[{"type": "mini"}], references=[], image={"size": 16}, score=[])
    del values["synthesize"]
    write_recipe(corpus, values)
    return corpus
