"""`stylear curate review` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from builders.finished_corpus import finish
from builders.review_client import post, state
from builders.systems_folder import write_systems
from typer.testing import CliRunner

from stylear.curate.cli import app
from stylear.curate.corpus.answers import Answer, Side, append_answer, read_answers
from stylear.errors import StylearError

ROOT = Path(__file__).parents[2]


def review(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["review", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.output


def accept_interrupts() -> None:
    """In the child: a test run in the background of a shell ignores Ctrl-C, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_two_reviewers_answer_on_the_page_and_ctrl_c_ends_with_code_0(tmp_path: Path) -> None:
    folder = write_systems(tmp_path / "drawn")
    for reviewer in ("ann", "bo"):
        command = [sys.executable, "-m", "stylear", "curate", "review", "--from", str(folder)]
        with subprocess.Popen(
            [*command, "--reviewer", reviewer],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=accept_interrupts,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            url = process.stdout.readline().removeprefix("review: ").strip()
            while (task := state(url)["task"]) is not None:
                assert post(url, "answer", {"task": task["id"], "answer": "left"})[0] == 200
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        assert process.returncode == 0
        assert errors.splitlines() == [
            f"0 of 2 answered by {reviewer}; Ctrl-C ends",
            f"2 of 2 answered by {reviewer}",
        ]
    assert [answer.reviewer for answer in read_answers(folder)] == ["ann", "ann", "bo", "bo"]
    summary = json.loads(review("--from", folder, "--summary", "--json"))
    assert [row["left"] for row in summary["reviewers"]] == [2, 2]
    assert {row["model"] for row in summary["models"]} == {"ours", "theirs"}


def test_the_summary_of_a_user_study_is_a_table(tmp_path: Path) -> None:
    folder = write_systems(tmp_path)
    for number in range(4):
        sides = Side("ours", f"ours/{number}.png"), Side("theirs", f"theirs/{number}.png")
        answer = "left" if number < 3 else "right"
        append_answer(folder, Answer("choice", str(number), "ann", answer, str(number), sides))
    lines = [line.split() for line in review("--from", folder, "--summary").splitlines()]
    assert lines[0] == ["reviewer", "keep", "drop", "left", "right", "tie"]
    assert lines[1] == ["ann", "0", "0", "3", "1", "0"]
    assert lines[3] == ["model", "comparisons", "wins", "ties", "win_rate", "strength"]
    assert lines[4][:5] == ["ours", "4", "3", "0", "0.750"]
    assert lines[5][:5] == ["theirs", "4", "1", "0", "0.250"]
    assert lines[4][5:] == ["[0.250,", "1.000]", "0.750", "[0.250,", "1.000]"]


def test_a_summary_without_answers_says_so(tmp_path: Path) -> None:
    corpus = finish(tmp_path)
    assert "nobody has answered yet" in review(corpus, "--summary")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected either CORPUS or --from FOLDER"),
        (["{corpus}", "--from", "{corpus}"], "expected either CORPUS or --from FOLDER"),
        (["{corpus}"], "expected a corpus"),
        (["memory://corpus"], "expected a local corpus"),
        (["--from", "{corpus}", "--ask", "love"], "--ask: expected keep or prefer, found 'love'"),
        (["--from", "{corpus}", "--json"], "--json: expected together with --summary"),
        (["--from", "{corpus}"], "at least two systems"),
    ],
)
def test_what_cannot_be_reviewed_is_an_error(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(StylearError, match=message):
        review(*(word.format(corpus=tmp_path) for word in arguments))
