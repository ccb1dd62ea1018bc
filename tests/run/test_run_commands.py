"""The commands of a run: data on stdout, one line for each mistake, the right exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import stylear.curate.cli
from stylear.curate.corpus.layout import STAGES
from stylear.curate.corpus.ledger import Ledger
from stylear.errors import (
    StylearError,
)

runner_cli = CliRunner()


def call(*words: str) -> tuple[int, str, StylearError | None]:
    result = runner_cli.invoke(stylear.curate.cli.app, list(words))
    error = result.exception
    if error is not None and not isinstance(error, (StylearError, SystemExit)):
        raise error
    return result.exit_code, result.stdout, error if isinstance(error, StylearError) else None


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.mark.usefixtures("quiet")
def test_the_commands_print_data_on_stdout(built: Path, home: Path) -> None:
    recipe, out = str(home / "recipe.yaml"), str(built)
    code, text, _ = call("run", recipe, "--out", out, "--workers", "1", "--json")
    printed = json.loads(text)
    assert code == 0
    assert [stage["stage"] for stage in printed["stages"]] == list(STAGES)
    assert Path(printed["report"]).is_file()
    for stage in STAGES:
        code, text, _ = call(stage, "--out", out, "--json")
        printed = json.loads(text)
        results = printed["stages"] if stage == "filter" else printed
        assert (code, [result["stage"] for result in results]) == (0, [stage])
    code, text, _ = call("run", recipe, "--out", out, "--dry-run")
    assert code == 0
    assert text.splitlines()[-6].split()[:2] == ["fetch", "3"]
    code, text, _ = call("filter", recipe, "--out", out, "--set", "filter.best_of=2")
    assert code == 0
    assert Ledger(built).entries("filter")[0].settings["filter"]["best_of"] == 2


MISTAKES = [
    (["run", "none.yaml", "--out", "x"], 2, "No such file"),
    (["run", "{home}/recipe.yaml", "--out", "{home}/photos"], 2, "expected a corpus or an empty"),
    (["run", "{home}/recipe.yaml", "--out", "x", "--set", "seed"], 2, "expected KEY=VALUE"),
    (["run", "{home}/recipe.yaml", "--out", "x", "--set", "sead=1"], 2, "sead: unknown key"),
    (
        ["run", "{home}/recipe.yaml", "--out", "{corpus}", "--redo", "fech"],
        2,
        "--redo: expected one of",
    ),
    (
        ["run", "{home}/recipe.yaml", "--out", "{corpus}", "--set", "image.size=16"],
        1,
        "image.size: 32 -> 16",
    ),
    (["score", "--out", "{home}/nowhere"], 1, "expected a corpus"),
    (["mix", "{home}/recipe.yaml", "--out", "{home}/new"], 1, "is not finished"),
    (["audit", "{home}/nowhere"], 1, "nowhere"),
    (["report", "{home}/nowhere"], 1, "nowhere"),
]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("words", "exit_code", "message"), MISTAKES, ids=lambda value: str(value)[:40]
)
def test_mistakes_are_one_line_with_the_right_exit_code(
    home: Path, built: Path, words: list[str], exit_code: int, message: str
) -> None:
    _, _, error = call(*(word.format(home=home, corpus=built) for word in words))
    assert error is not None
    assert error.exit_code == exit_code
    assert message in error.message
    assert "\n" not in error.message


@pytest.mark.usefixtures("quiet")
def test_audit_distinguishes_a_changed_corpus_from_an_untouched_one(built: Path) -> None:
    code, _, error = call("audit", str(built))
    assert (code, error) == (0, None)
    path = built / "train" / "00000.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    code, text, error = call("audit", str(built))
    assert code == 1 or (error is not None and error.exit_code == 1)
    assert "train/00000.tar" in text + (error.message if error else "")
