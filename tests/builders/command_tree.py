"""The commands of `stylear` as a tree, and command lines checked against it, for tests."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any

import typer

from stylear.cli import mount

FENCE = re.compile(r"^\s*(```|~~~)")
INLINE = re.compile(r"`((?:\S*/)?stylear [^`\n]+)`")
STOPS = {"|", "||", "&&", ";", "&", ">", ">>", "2>", "#"}


@cache
def root() -> Any:
    """The whole command group, `curate` and `train` included."""
    return typer.main.get_command(mount())


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that is not a group, with its words: ("models list", command)."""
    yield from _leaves("", root())


def _leaves(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in sorted(children.items()):
        yield from _leaves(f"{path} {name}".strip(), child)


def find_command(line: str) -> tuple[Any, list[str]]:
    """The command that a line names, and the words behind its name."""
    command, words = root(), shlex.split(line, comments=True)[1:]
    while words and (children := getattr(command, "commands", {})) and words[0] in children:
        command, words = children[words[0]], words[1:]
    return command, words


def problem(line: str) -> str | None:
    """What is wrong with a `stylear ...` command line; None when its command and options exist."""
    words = []
    for word in shlex.split(line, comments=True):
        if word in STOPS:
            break
        words.append(word)
    command, path = root(), "stylear"
    remaining = words[1:]
    while remaining and (children := getattr(command, "commands", None)) is not None:
        if remaining[0].startswith("-") or remaining[0] == "...":
            break
        if remaining[0] not in children:
            return f"{path} has no command {remaining[0]!r}"
        command, path = children[remaining[0]], f"{path} {remaining[0]}"
        remaining = remaining[1:]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    known |= {option for parameter in command.params for option in parameter.secondary_opts}
    for word in remaining:
        option = word.strip("[]").split("=")[0]
        if re.fullmatch(r"--?[a-zA-Z][\w-]*", option) and option not in known:
            return f"{path} has no option {option}"
    return None


def lines_of(markdown: str) -> list[str]:
    """The `stylear ...` command lines of a page: in fenced blocks and in backticks."""
    lines, fenced = [], False
    text = markdown.replace("\\\n", " ")
    for line in text.splitlines():
        if FENCE.match(line):
            fenced = not fenced
        elif fenced:
            words = line.strip().removeprefix("$ ").split()
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words = words[1:]
            if words and words[0].rsplit("/", 1)[-1] == "stylear":
                lines.append(" ".join(["stylear", *words[1:]]))
        else:
            lines += [re.sub(r"^\S*stylear ", "stylear ", match) for match in INLINE.findall(line)]
    return lines
