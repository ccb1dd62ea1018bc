"""What reviewers drop is dropped by the filter, as by any other rule."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest
from builders.finished_corpus import finish, finished_settings
from builders.pictures_folder import make_recipe

from stylear.curate import run as runner
from stylear.curate.audit.auditor import audit
from stylear.curate.corpus.answers import Answer, append_answer
from stylear.curate.corpus.layout import ANSWERS, COLUMNS, STAGES, VERDICTS
from stylear.curate.corpus.ledger import ALL, Ledger
from stylear.curate.corpus.parquet import read_table
from stylear.curate.explain.find import find_pairs
from stylear.curate.explain.history import explain
from stylear.curate.filter import apply_rules, count_funnel, load_rows
from stylear.curate.review.corpus_tasks import CorpusMaterial
from stylear.curate.review.session import Session


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return finish(tmp_path)


def rerun(corpus: Path, **changes: Any) -> dict[str, int]:
    """Run all stages again; how many units each made."""
    recipe = make_recipe(corpus.parent, finished_settings(**changes))
    return {r.stage: r.new for r in runner.run_stages(STAGES, recipe, corpus, workers=1)}


def verdicts(corpus: Path) -> dict[str, str | None]:
    """The reason of each pair; None if it is kept."""
    rows = read_table(corpus / VERDICTS, ["key", "kept", "reason"]).to_pylist()
    return {row["key"]: None if row["kept"] else row["reason"] for row in rows}


def judge(corpus: Path, reviewer: str, answer: str, *keys: str) -> None:
    for key in keys:
        append_answer(corpus, Answer("pair", key, reviewer, answer))


def with_human(**rule: Any) -> dict[str, Any]:
    return {**finished_settings()["filter"], "human": rule}


def test_a_dropped_pair_leaves_train_and_preferences_and_the_audit_passes(corpus: Path) -> None:
    assert set(rerun(corpus).values()) == {0}
    before = verdicts(corpus)
    train = read_table(corpus / "train" / "00000.parquet", ["key"])["key"].to_pylist()
    judge(corpus, "ann", "drop", train[0])
    judge(corpus, "ann", "keep", *train[1:])
    new_units = rerun(corpus)
    assert {stage for stage, new in new_units.items() if new} == {"filter", "mix", "pairs"}
    after = verdicts(corpus)
    assert after[train[0]] == "human-dropped"
    assert {key for key in before if before[key] == after[key]} >= set(before) - {train[0]} - {
        key for key, reason in before.items() if reason == "not-best"
    }
    entry = Ledger(corpus).entry("filter", ALL)
    assert entry is not None
    assert entry.dropped["human-dropped"] == 1
    for table in ("train", "val", "preferences"):
        for path in sorted((corpus / table).glob("*.parquet")):
            rows = read_table(path).to_pylist()
            assert [r for r in rows if train[0] in (r["key"], r.get("chosen"))] == []
    audit(corpus).require()
    assert set(rerun(corpus).values()) == {0}


def test_the_review_folder_is_no_part_of_the_manifest(corpus: Path) -> None:
    judge(corpus, "ann", "keep", next(iter(verdicts(corpus))))
    audit(corpus).require()


def test_an_answer_that_changes_no_vote_redoes_nothing(corpus: Path) -> None:
    key = next(key for key, reason in verdicts(corpus).items() if reason is None)
    judge(corpus, "ann", "drop", key)
    rerun(corpus)
    judge(corpus, "ann", "drop", key)
    assert set(rerun(corpus).values()) == {0}


def test_a_dry_run_counts_what_a_run_drops(corpus: Path) -> None:
    key = next(key for key, reason in verdicts(corpus).items() if reason is None)
    judge(corpus, "ann", "drop", key)
    recipe = make_recipe(corpus.parent, finished_settings())
    assert (corpus / COLUMNS).is_file()
    expected = count_funnel(apply_rules(load_rows(corpus, recipe), recipe.filter))
    (corpus / COLUMNS).unlink()
    assert count_funnel(apply_rules(load_rows(corpus, recipe), recipe.filter)) == expected
    assert [row["pairs"] for row in expected if row["verdict"] == "human-dropped"] == [1]


@pytest.mark.parametrize(
    ("rule", "dropped"),
    [
        ({}, {"one of one", "two of three", "two of two"}),
        ({"share": 0.4}, {"one of one", "one of two", "two of three", "two of two"}),
        ({"at_least": 2}, {"two of three", "two of two"}),
        ({"at_least": 2, "share": 0.9}, {"two of two"}),
        (None, set()),
    ],
)
def test_at_least_and_share_decide_who_is_dropped(
    corpus: Path, rule: dict[str, Any] | None, dropped: set[str]
) -> None:
    kept = [key for key, reason in verdicts(corpus).items() if reason is None]
    votes = {"one of one": "d", "one of two": "dk", "two of three": "ddk", "two of two": "dd"}
    names = dict(zip(votes, kept, strict=False))
    for name, key in names.items():
        for reviewer, vote in enumerate(votes[name]):
            judge(corpus, f"r{reviewer}", {"d": "drop", "k": "keep"}[vote], key)
    settings = {**finished_settings()["filter"], "human": rule}
    recipe = make_recipe(corpus.parent, finished_settings(filter=settings))
    rows = load_rows(corpus, recipe)
    apply_rules(rows, recipe.filter)
    reasons = rows.reason.array().to_pylist()
    order = list(verdicts(corpus))
    assert {
        n for n, key in names.items() if reasons[order.index(key)] == "human-dropped"
    } == dropped


def test_require_drops_what_nobody_has_reviewed(corpus: Path) -> None:
    kept = [key for key, reason in verdicts(corpus).items() if reason is None]
    judge(corpus, "ann", "keep", *kept[:5])
    rerun(corpus, filter=with_human(require=True))
    after = verdicts(corpus)
    assert [key for key, reason in after.items() if reason is None] == kept[:5]
    assert Counter(after.values())["human-unreviewed"] >= len(kept) - 5


def test_explain_names_the_rule_and_the_votes(corpus: Path) -> None:
    key = next(key for key, reason in verdicts(corpus).items() if reason is None)
    judge(corpus, "ann", "drop", key)
    judge(corpus, "bo", "drop", key)
    judge(corpus, "cy", "keep", key)
    rerun(corpus)
    [history] = explain(corpus, find_pairs(corpus, key))
    text = str(history)
    assert "filter.human.at_least" in text
    assert "reviewers: 1 keep it, 2 drop it" in text


def test_a_corpus_asks_about_what_other_rules_kept_and_about_what_people_dropped(
    corpus: Path,
) -> None:
    kept = [key for key, reason in verdicts(corpus).items() if reason is None]
    tasks = CorpusMaterial(corpus).tasks("keep")
    assert [task.id for task in tasks] == kept
    judge(corpus, "ann", "drop", kept[0])
    rerun(corpus)
    assert kept[0] in [task.id for task in CorpusMaterial(corpus).tasks("keep")]


def test_choices_are_the_candidates_of_one_prompt_and_reference(corpus: Path) -> None:
    groups = read_table(corpus / VERDICTS, ["key", "group"]).to_pylist()
    group_of = {row["key"]: row["group"] for row in groups}
    material = CorpusMaterial(corpus)
    tasks = material.tasks("prefer")
    assert len(tasks) > 0
    for task in tasks:
        first, second = (group_of[side.picture] for side in task.sides)
        assert first == second == task.group
        assert task.reference is not None
        assert material.read_reference(task.reference) is not None
    side = tasks[0].sides[0]
    assert side.model == "synthesizer:statistics"
    assert material.read_picture(side)[:4] == b"\x89PNG"


@pytest.mark.parametrize("ask", ["keep", "prefer"])
def test_answers_about_a_corpus_hold_keys_and_no_captions(
    corpus: Path, ask: Literal["keep", "prefer"]
) -> None:
    """So nothing of a forgotten pair is left in them but its key, which its row keeps, too."""
    session = Session(corpus, CorpusMaterial(corpus).tasks(ask), "ann")
    for task in session.tasks.values():
        assert session.answer(task.id, "keep" if ask == "keep" else "left") == "saved"
    text = (corpus / ANSWERS).read_text("utf-8")
    assert text.count("\n") == len(session.tasks) > 5
    assert "thing number" not in text
    assert "photos" not in text
