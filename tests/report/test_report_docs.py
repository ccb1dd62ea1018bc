"""The commands of docs/report.md work as printed, and the page's limits are those of the code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from builders.page_commands import DOCS, page_commands, run_command

from stylear.curate.report.explorer.rows import MAX_PAIRS


def test_the_commands_of_the_page_work_as_printed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "my-corpus")
    monkeypatch.chdir(tmp_path)
    commands = page_commands("report.md")
    outputs = [run_command(line).stdout for line in commands]
    assert outputs[0] == "report: my-corpus/report/index.html\n"
    assert json.loads(outputs[1]) == {"report": "my-corpus/report/index.html"}
    assert Path("my-corpus/report/pairs.html").is_file()


def test_the_limit_is_that_of_the_code() -> None:
    assert f"at most {MAX_PAIRS:,} pairs" in (DOCS / "report.md").read_text("utf-8")
