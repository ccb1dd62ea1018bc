"""The commands that a page prints, run as they stand, for tests."""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path

import typer
from typer.testing import CliRunner, Result

from builders.command_tree import lines_of
from stylear.cli import mount
from stylear.curate.cli import app

DOCS = Path(__file__).parents[2] / "docs"


def page_commands(page: str) -> list[str]:
    """The `stylear ...` lines in the blocks of a page of docs/, in order."""
    text = (DOCS / page).read_text("utf-8")
    blocks = text.split("```bash")[1:]
    return lines_of("".join(f"```bash{block.split('```')[0]}```\n" for block in blocks))


def run_command(line: str) -> Result:
    """Run one `stylear curate ...` line in the working directory."""
    words = shlex.split(line, comments=True)
    assert words[:2] == ["stylear", "curate"], line
    result = CliRunner().invoke(app, words[2:], catch_exceptions=False)
    assert result.exit_code == 0, f"{line}\n{result.output}"
    return result


@cache
def whole_app() -> typer.Typer:
    """`stylear` with its groups; mounted once, as each time adds them again."""
    return mount()


def run_anywhere(line: str) -> Result:
    """Run one `stylear ...` line, of any group, in the working directory and in this process."""
    words = shlex.split(line, comments=True)
    assert words[0] == "stylear", line
    result = CliRunner().invoke(whole_app(), words[1:], catch_exceptions=False)
    assert result.exit_code == 0, f"{line}\n{result.output}"
    return result
