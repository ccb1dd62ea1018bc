"""Every `stylear ...` line in the pages is a command that exists, with options that exist."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.command_tree import lines_of, problem

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("stylear/mini/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_commands_of_a_page_exist(page: Path) -> None:
    wrong = [
        f"{line}: {what}" for line in lines_of(page.read_text("utf-8")) if (what := problem(line))
    ]
    assert wrong == []


def test_the_readme_shows_commands() -> None:
    assert len(lines_of((ROOT / "README.md").read_text("utf-8"))) >= 3


def test_command_lines_are_found_in_blocks_and_in_backticks() -> None:
    page = """
Run `stylear models list` or `.venv/bin/stylear demo --out x`, not `stylear` or `make demo`.

```bash
$ stylear generate --model M \\
    --prompt "a dog"
OMP_NUM_THREADS=1 stylear models verify # a remark
echo stylear
```
"""
    assert lines_of(page) == [
        "stylear models list",
        "stylear demo --out x",
        'stylear generate --model M --prompt "a dog"',
        "stylear models verify # a remark",
    ]


def test_wrong_command_lines_are_found() -> None:
    assert problem("stylear models verify --write") is None
    assert problem("stylear generate --model M --prompt 'a --fast dog' --out x | wc") is None
    assert problem("stylear models") is None
    assert problem("stylear paint") == "stylear has no command 'paint'"
    assert problem("stylear models burn") == "stylear models has no command 'burn'"
    assert problem("stylear generate --sead 1") == "stylear generate has no option --sead"
