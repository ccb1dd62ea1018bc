"""What people answered about a forgotten pair goes with it; everything else that they said stays."""

from __future__ import annotations

import json
import shutil
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from builders.forgotten_corpus import pair_to_forget

from stylear.curate import run as runner
from stylear.curate.audit.auditor import audit
from stylear.curate.corpus.answers import (
    UNDO,
    Answer,
    Side,
    append_answer,
    count_votes,
    forget_answers,
    lock_answers,
    read_answers,
)
from stylear.curate.corpus.layout import ANSWERS, RECIPE
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.forget import forget_pairs
from stylear.curate.forget.request import Request
from stylear.curate.recipe import load_recipe


@pytest.fixture
def corpus(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished.parent / "photos", tmp_path / "photos")
    shutil.copytree(finished.parent / "styles", tmp_path / "styles")
    return Path(shutil.copytree(finished, tmp_path / "corpus"))


def answer_about(corpus: Path, *keys: str) -> None:
    """Ann keeps each pair and prefers the first of each two; bo takes an answer about the first back."""
    for key in keys:
        append_answer(corpus, Answer("pair", key, "ann", "keep"))
    append_answer(corpus, Answer("pair", keys[0], "bo", "drop"))
    append_answer(corpus, Answer(UNDO, keys[0], "bo", ""))
    for first, second in pairwise(keys):
        sides = Side("m", first), Side("m", second)
        append_answer(corpus, Answer("choice", f"{first}:{second}", "ann", "left", "g", sides))


def test_lines_about_a_forgotten_pair_go_and_the_others_stay_as_they_are(tmp_path: Path) -> None:
    answer_about(tmp_path, "a", "b", "c")
    before = (tmp_path / ANSWERS).read_bytes().splitlines(keepends=True)
    assert forget_answers(tmp_path, {"a"}) == 4
    left = (tmp_path / ANSWERS).read_bytes().splitlines(keepends=True)
    assert left == [before[1], before[2], before[6]]
    assert forget_answers(tmp_path, {"a"}) == 0
    assert forget_answers(tmp_path / "nowhere", {"a"}) == 0


def test_an_answer_given_while_the_file_is_replaced_is_not_lost(tmp_path: Path) -> None:
    answer_about(tmp_path, "a", "b")
    late = Answer("pair", "c", "cy", "keep")
    writer = threading.Thread(target=append_answer, args=(tmp_path, late))
    path = tmp_path / ANSWERS
    with lock_answers(path):
        writer.start()
        (tmp_path / "new").write_bytes(path.read_bytes())
        (tmp_path / "new").replace(path)
    writer.join()
    assert read_answers(tmp_path)[-1] == late


def test_a_forget_removes_the_answers_and_the_next_run_redoes_nothing(corpus: Path) -> None:
    raw, children = pair_to_forget(corpus)
    other = next(p for p in iter_pairs(corpus / "raw") if p.kept and p.key != raw.key)
    answer_about(corpus, raw.key, other.key)
    append_answer(corpus, Answer("pair", children[0].key, "ann", "keep"))
    recipe = load_recipe(corpus / RECIPE)
    runner.run_stages(["filter", "mix", "pairs"], recipe, corpus, workers=1)
    forget_pairs(corpus, Request(sources=(raw.origin.source,)))
    assert list(count_votes(read_answers(corpus))) == [other.key]
    named = [json.loads(line) for line in (corpus / ANSWERS).read_text().splitlines()]
    assert [line["task"] for line in named] == [other.key]
    assert audit(corpus).passed
    results = runner.run_stages(["filter", "mix", "pairs"], recipe, corpus, workers=1)
    assert [result.new for result in results] == [0, 0, 0]


def test_the_audit_finds_an_answer_about_a_forgotten_pair(corpus: Path) -> None:
    raw, _ = pair_to_forget(corpus)
    forget_pairs(corpus, Request(sources=(raw.origin.source,)))
    append_answer(corpus, Answer("pair", raw.key, "ann", "keep"))
    [difference] = audit(corpus).differences
    assert difference.where == f"{ANSWERS} {raw.key}"
    assert difference.found == "an answer about it"
