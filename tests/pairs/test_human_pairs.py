"""Preference pairs by people: what they prefer replaces the choice by scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.finished_corpus import finish, finished_settings
from builders.pictures_folder import make_recipe

from stylear.curate import run as runner
from stylear.curate.audit.auditor import audit
from stylear.curate.audit.pairs import Placement
from stylear.curate.audit.preferences import check_preferences
from stylear.curate.audit.tables import PairIndex
from stylear.curate.corpus.answers import Answer, Side, append_answer
from stylear.curate.corpus.layout import STAGES, VERDICTS
from stylear.curate.corpus.parquet import read_table, write_table
from stylear.curate.corpus.shards import iter_pairs, write_shard
from stylear.curate.corpus.split import SPLITS
from stylear.pair import Origin, Pair


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return finish(tmp_path)


def preferences(corpus: Path) -> list[dict[str, Any]]:
    return [
        row
        for path in sorted((corpus / "preferences").glob("*.parquet"))
        for row in read_table(path).to_pylist()
    ]


def couples(corpus: Path) -> set[tuple[str, str]]:
    return {(row["chosen"], row["rejected"]) for row in preferences(corpus)}


def candidate_pairs(corpus: Path, *, in_train: bool) -> Iterator[tuple[str, str]]:
    """(best, worst) of each group of two, by the side on which the group is."""
    train = {pair.key for pair in iter_pairs(corpus / "train")}
    groups: dict[str, list[tuple[float, str]]] = {}
    for row in read_table(corpus / VERDICTS, ["key", "group", "rank"]).to_pylist():
        if row["group"] is not None:
            groups.setdefault(row["group"], []).append((row["rank"], row["key"]))
    for ranked in groups.values():
        keys = [key for _, key in sorted(ranked, reverse=True)]
        if len(keys) == 2 and bool(train & set(keys)) is in_train:
            yield keys[0], keys[1]


def prefer(corpus: Path, winner: str, other: str, reviewer: str = "ann") -> None:
    sides = Side("m", other), Side("m", winner)
    task = "-".join(sorted((winner, other)))
    append_answer(corpus, Answer("choice", task, reviewer, "right", "g", sides))


def rerun(corpus: Path, **pairs: Any) -> dict[str, int]:
    settings = finished_settings(pairs={"margin": 0.0, **pairs})
    recipe = make_recipe(corpus.parent, settings)
    return {r.stage: r.new for r in runner.run_stages(STAGES, recipe, corpus, workers=1)}


def test_a_preference_of_people_replaces_the_choice_by_scores(corpus: Path) -> None:
    before = couples(corpus)
    best, worst = next(c for c in candidate_pairs(corpus, in_train=True) if c in before)
    prefer(corpus, worst, best)
    new_units = rerun(corpus)
    assert {stage for stage, new in new_units.items() if new} == {"pairs"}
    assert couples(corpus) == before - {(best, worst)} | {(worst, best)}
    [row] = [row for row in preferences(corpus) if row["chosen"] == worst]
    assert (row["chosen_score"], row["rejected_score"], row["margin"]) == (None, None, None)
    audit(corpus).require()
    runner.write_report(corpus)
    assert "by people" in (corpus / "report" / "index.html").read_text("utf-8")
    assert set(rerun(corpus).values()) == {0}


def test_ignore_and_only(corpus: Path) -> None:
    before = couples(corpus)
    best, worst = next(c for c in candidate_pairs(corpus, in_train=True) if c in before)
    prefer(corpus, worst, best)
    rerun(corpus, human="ignore")
    assert couples(corpus) == before
    rerun(corpus, human="only")
    assert couples(corpus) == {(worst, best)}
    audit(corpus).require()


def test_only_without_a_preference_says_what_to_do(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rerun(corpus, human="only")
    assert couples(corpus) == set()
    assert "pairs.human is only, and no reviewer prefers a candidate" in capsys.readouterr().err


def test_nothing_is_learnt_from_groups_outside_train(corpus: Path) -> None:
    before = couples(corpus)
    outside = list(candidate_pairs(corpus, in_train=False))
    assert len(outside) > 0
    for best, worst in outside:
        prefer(corpus, worst, best)
    rerun(corpus)
    assert couples(corpus) == before


def test_a_tie_between_reviewers_leaves_the_choice_to_the_scores(corpus: Path) -> None:
    before = couples(corpus)
    best, worst = next(c for c in candidate_pairs(corpus, in_train=True) if c in before)
    prefer(corpus, worst, best)
    prefer(corpus, best, worst, "bo")
    assert set(rerun(corpus).values()) == {0}
    assert couples(corpus) == before


def test_a_dropped_pair_is_never_preferred(corpus: Path) -> None:
    before = couples(corpus)
    best, worst = next(c for c in candidate_pairs(corpus, in_train=True) if c in before)
    prefer(corpus, best, worst)
    append_answer(corpus, Answer("pair", best, "bo", "drop"))
    rerun(corpus)
    assert [row for row in preferences(corpus) if row["chosen"] == best] == []
    audit(corpus).require()


def test_an_unknown_key_is_ignored(corpus: Path) -> None:
    before = couples(corpus)
    prefer(corpus, "f" * 32, "0" * 32)
    rerun(corpus)
    assert couples(corpus) == before


@pytest.mark.parametrize(
    ("chosen", "scores", "differences"),
    [
        ("a", (0.9, 0.1, 0.8), []),
        ("b", (0.9, 0.1, 0.8), ["a chosen pair of train"]),
        ("b", (None, None, None), []),
        ("d", (None, None, None), ["a chosen pair of train"]),
        ("a", (0.1, 0.9, -0.8), ["a higher chosen score"]),
        ("a", (None, None, 0.8), ["a higher chosen score"]),
    ],
)
def test_the_audit_lets_people_choose_any_candidate_of_a_group_in_train(
    chosen: str, scores: tuple[float | None, ...], differences: list[str], tmp_path: Path
) -> None:
    """Groups g (a, b, c; a is in train) and h (d, e; none is)."""
    import pyarrow as pa

    rejected = "c" if chosen in "abc" else "e"
    origin = Origin("stylized", "synthesizer:statistics", "content")
    write_shard(tmp_path / "stylized", 0, [Pair(key, "", b"", origin) for key in "abcde"])
    groups = {"key": list("abcde"), "group": list("ggghh")}
    write_table(tmp_path / "verdicts.parquet", pa.table(groups))
    names = ("chosen_score", "rejected_score", "margin")
    numbers = {n: pa.array([v], pa.float64()) for n, v in zip(names, scores, strict=True)}
    row = {"key": ["p"], "chosen": [chosen], "rejected": [rejected]}
    write_table(tmp_path / "preferences" / "00000.parquet", pa.table({**row, **numbers}))
    pairs = PairIndex(tmp_path)
    placement = Placement(pairs)
    placement.split[pairs.find(pa.array(["a"]))] = SPLITS.index("train")
    assert [d.expected for d in check_preferences(tmp_path, pairs, placement)] == differences
