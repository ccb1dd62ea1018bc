"""Scores that compare a pair with all others stay as they are, and a later run takes them as they are."""

from __future__ import annotations

from pathlib import Path

from builders.device import ON_DEVICE
from builders.finished_corpus import finish
from builders.forgotten_corpus import pair_to_forget, rows
from builders.tiny_clip import write_tiny_clip

from stylear.curate import run as runner
from stylear.curate.audit.auditor import audit
from stylear.curate.corpus.layout import STAGES
from stylear.curate.forget import forget_pairs
from stylear.curate.forget.request import Request
from stylear.curate.recipe import load_recipe


def test_embeddings_of_a_forgotten_pair_are_gone_and_no_score_is_made_again(tmp_path: Path) -> None:
    write_tiny_clip(tmp_path / "clip")
    near = {"name": "near", "type": "nearest", "model": str(tmp_path / "clip"), **ON_DEVICE}
    corpus = finish(tmp_path, score=[{"name": "texture", "type": "texture"}, near])
    raw, children = pair_to_forget(corpus)
    keys = {raw.key, *(child.key for child in children)}
    before = {row["key"]: row["near"] for row in rows(corpus, "scores/near")}
    forget_pairs(corpus, Request(sources=(raw.origin.source,)))
    embeddings = rows(corpus, "scores/near.embeddings")
    assert {row["key"] for row in embeddings if list(row.values())[1] is None} >= keys
    after = {row["key"]: row["near"] for row in rows(corpus, "scores/near")}
    assert after == {key: None if key in keys else value for key, value in before.items()}
    assert audit(corpus).passed
    results = runner.run_stages(STAGES, load_recipe(corpus / "recipe.yaml"), corpus, workers=1)
    assert [result.new for result in results] == [0] * len(STAGES)
