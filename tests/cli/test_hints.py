"""Every command that an error or a hint names exists, takes these words, and is complete."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from builders.command_tree import find_command, problem

from stylear.curate.corpus.layout import STAGES

ROOT = Path(__file__).parents[2]
FOLDERS = ("curate", "train", "stylear")
QUOTED = re.compile(r"`(stylear [^`]+)`")
BARE = re.compile(r"(?<!`)\b(stylear (?:curate|train|models) [a-z]+(?: [A-Za-z0-9./_\0-]+)*)")
# what stands for a name that is only known when the error is raised
PLACEHOLDER = "\0"


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every string of a module that is no docstring; a placeholder for each value."""
    tree = ast.parse(file.read_text("utf-8"))
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    inner: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(part) for part in node.values}
            yield (
                node.lineno,
                "".join(
                    part.value if isinstance(part, ast.Constant) else PLACEHOLDER
                    for part in node.values
                ),
            )
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings | inner
        ):
            yield node.lineno, node.value


def named_commands() -> list[tuple[str, str]]:
    """(file and line, command line) of every command that a string of the code names."""
    commands = []
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            if file.parent.name == "cli" and file.name != "recipes.py":
                continue  # help texts, which have tests of their own
            for line, text in texts(file):
                for command in QUOTED.findall(text) or BARE.findall(text):
                    commands.append((f"{file.relative_to(ROOT)}:{line}", command.strip()))
    return commands


def expand(command: str) -> list[str]:
    """The command with its placeholder filled: a stage where a command's name stands, else a word."""
    stage = re.compile(rf"(stylear curate |--redo ){PLACEHOLDER}")
    lines = [command]
    if stage.search(command):
        lines = [stage.sub(rf"\g<1>{name}", command) for name in STAGES]
    return [line.replace(PLACEHOLDER, "word") for line in lines]


def test_hints_name_commands() -> None:
    assert len(named_commands()) > 15


def test_every_named_command_exists_with_its_options() -> None:
    wrong = [
        f"{place}: {line}: {what}"
        for place, command in named_commands()
        for line in expand(command)
        if (what := problem(line))
    ]
    assert wrong == []


def test_every_named_command_that_has_arguments_parses() -> None:
    """A line with arguments is to be typed as it stands; a bare `stylear curate run` is a mention."""
    wrong, parsed = [], 0
    for place, text in named_commands():
        for line in expand(text):
            command, words = find_command(line)
            if not words or "..." in words:
                continue
            parsed += 1
            if what := parse_problem(command, words):
                wrong.append(f"{place}: {line}: {what}")
    assert wrong == []
    assert parsed > 5


def parse_problem(command: Any, words: list[str]) -> str | None:
    """What click says of the words; None when it takes all of them."""
    usage_error = typer.BadParameter.__base__
    assert usage_error is not None
    try:
        command.make_context("stylear", list(words))
    except usage_error as error:
        return str(error.format_message())  # type: ignore[attr-defined]
    return None


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("stylear curate run RECIPE --out CORPUS --redo fetch", None),
        ("stylear curate run --out CORPUS --redo fetch", "Missing argument"),
        ("stylear curate fetch RECIPE --out CORPUS --redo fetch", "unexpected extra argument"),
    ],
)
def test_wrong_words_are_found(line: str, what: str | None) -> None:
    problem = parse_problem(*find_command(line))
    assert (problem is None) if what is None else (problem is not None and what in problem)


def test_strings_are_read_with_placeholders(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        '"""`stylear no`"""\nx = f"run `stylear curate {stage}` now"\ny = "stylear models list"\n'
    )
    assert list(texts(file)) == [
        (2, f"run `stylear curate {PLACEHOLDER}` now"),
        (3, "stylear models list"),
    ]
    assert shlex.split(expand(f"stylear curate {PLACEHOLDER}")[0]) == ["stylear", "curate", "fetch"]
