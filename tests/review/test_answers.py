"""Answers are appended and survive a torn line; the last one of a reviewer counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stylear.curate.corpus.answers import (
    UNDO,
    Answer,
    Side,
    Votes,
    append_answer,
    count_votes,
    list_preferences,
    read_answers,
)
from stylear.curate.corpus.layout import ANSWERS
from stylear.errors import CorpusError

ROOT = Path(__file__).parents[2]


def keep(key: str, reviewer: str = "ann", answer: str = "keep") -> Answer:
    return Answer("pair", key, reviewer, answer)


def prefer(answer: str, left: str, right: str, reviewer: str = "ann") -> Answer:
    sides = Side("m", left), Side("m", right)
    return Answer("choice", f"{left}-{right}", reviewer, answer, "g", sides)


def test_answers_are_read_as_they_were_given(tmp_path: Path) -> None:
    answers = [keep("a"), keep("b", answer="drop"), prefer("tie", "x", "y", "bo")]
    for answer in answers:
        append_answer(tmp_path, answer)
    assert read_answers(tmp_path) == answers
    lines = (tmp_path / ANSWERS).read_text("utf-8").splitlines()
    first = json.loads(lines[0])
    assert first.pop("at").endswith("+00:00")
    assert first == {"kind": "pair", "task": "a", "reviewer": "ann", "answer": "keep"}
    assert len(lines) == 3


def test_the_last_answer_of_a_reviewer_counts_and_undo_takes_it_back(tmp_path: Path) -> None:
    steps = [keep("a"), keep("a", answer="drop"), keep("b"), Answer(UNDO, "b", "ann", "")]
    for answer in [*steps, keep("a", "bo")]:
        append_answer(tmp_path, answer)
    assert read_answers(tmp_path) == [keep("a", answer="drop"), keep("a", "bo")]
    assert count_votes(read_answers(tmp_path)) == {"a": Votes(keep=1, drop=1)}


def test_a_torn_last_line_is_ignored_and_cut_off_by_the_next_answer(tmp_path: Path) -> None:
    append_answer(tmp_path, keep("a"))
    path = tmp_path / ANSWERS
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind":"pair","task":"b","revie')
    assert read_answers(tmp_path) == [keep("a")]
    append_answer(tmp_path, keep("c"))
    assert read_answers(tmp_path) == [keep("a"), keep("c")]
    assert path.read_bytes().startswith(whole + b'{"kind":"pair","task":"c"')


def test_a_file_with_nothing_but_a_torn_line_starts_anew(tmp_path: Path) -> None:
    (tmp_path / "review").mkdir()
    (tmp_path / ANSWERS).write_bytes(b'{"kind"')
    assert read_answers(tmp_path) == []
    append_answer(tmp_path, keep("a"))
    assert read_answers(tmp_path) == [keep("a")]


@pytest.mark.parametrize(
    "line",
    [
        '{"kind": "pair", "task": "a", "reviewer": "ann", "answer": "maybe"}',
        '{"kind": "pair", "task": 3, "reviewer": "ann", "answer": "keep"}',
        '{"kind": "choice", "task": "a", "reviewer": "ann", "answer": "left", "group": "g"}',
        '{"kind": "other", "task": "a", "reviewer": "ann", "answer": "keep"}',
        "[]",
        "no json",
        "",
    ],
)
def test_a_whole_line_that_is_no_answer_is_an_error_with_its_number(
    tmp_path: Path, line: str
) -> None:
    append_answer(tmp_path, keep("a"))
    with (tmp_path / ANSWERS).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(CorpusError, match="line 2: expected a review answer"):
        read_answers(tmp_path)


CHILD = """
import sys
from pathlib import Path
from stylear.curate.corpus.answers import Answer, append_answer
for number in range(int(sys.argv[3])):
    append_answer(Path(sys.argv[1]), Answer("pair", f"{number:04d}", sys.argv[2], "keep"))
    print(number, flush=True)
"""


def child(folder: Path, reviewer: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(folder), reviewer, str(count)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_every_acknowledged_answer_survives_a_kill(tmp_path: Path) -> None:
    with child(tmp_path, "ann", 100_000) as process:
        assert process.stdout is not None
        seen = [int(next(process.stdout)) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
    tasks = [answer.task for answer in read_answers(tmp_path)]
    assert tasks[:20] == [f"{number:04d}" for number in seen]
    append_answer(tmp_path, keep("last"))
    assert read_answers(tmp_path)[-1] == keep("last")


def test_two_processes_append_without_losing_a_line(tmp_path: Path) -> None:
    both = [child(tmp_path, name, 50) for name in ("ann", "bo")]
    assert [process.communicate(timeout=60)[1] for process in both] == [None, None]
    answers = read_answers(tmp_path)
    for name in ("ann", "bo"):
        own = [answer.task for answer in answers if answer.reviewer == name]
        assert own == [f"{number:04d}" for number in range(50)]


def test_preferences_are_what_most_reviewers_say() -> None:
    answers = [
        prefer("left", "a", "b"), prefer("right", "b", "a", "bo"), prefer("right", "a", "b", "cy"),
        prefer("left", "c", "d"), prefer("right", "c", "d", "bo"),
        prefer("tie", "e", "f"),
        prefer("right", "g", "h"),
    ]  # fmt: skip
    assert list_preferences(answers) == [("a", "b"), ("h", "g")]
