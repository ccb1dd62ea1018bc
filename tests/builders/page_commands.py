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


def shrink_recipe(path: Path) -> None:
    """Smaller and fewer pictures in a recipe that `stylear curate init` wrote, any of them a preference."""
    text = path.read_text("utf-8")
    shrunk = {
        "size: 256 ": "size: 64 ",
        "contents: 100 ": "contents: 10 ",
        "margin: 0.02 ": "margin: 0.0 ",
    }
    for line, small in shrunk.items():
        assert text.count(line) == 1, line
        text = text.replace(line, small)
    path.write_text(text, "utf-8")
