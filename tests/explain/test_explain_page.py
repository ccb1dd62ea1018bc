"""The commands of docs/explain.md work as printed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from builders.page_commands import page_commands, run_command

from stylear.curate import run as runner
from stylear.curate.recipe import load_recipe


def test_the_commands_of_the_page_work_as_printed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("my-corpus", "stricter-corpus"):
        shutil.copytree(finished, tmp_path / name)
    shutil.copytree(finished.parent / "photos", tmp_path / "photos")
    recipe = load_recipe(finished / "recipe.yaml", {"filter.per_style": 1})
    runner.run_stages(["filter", "mix", "pairs"], recipe, tmp_path / "stricter-corpus", workers=1)
    monkeypatch.chdir(tmp_path)
    commands = page_commands("explain.md")
    assert [line.split()[2] for line in commands] == ["explain", "explain", "diff", "diff", "diff"]
    outputs = [run_command(line).stdout for line in commands]
    assert "folder:photos/p002.png" in outputs[0]
    assert '"matched_by": "picture"' in outputs[1]
    assert "filter.per_style" in outputs[2]
    assert "-> filter: style-quota" in outputs[3]
    assert '"mean_shift": 0.0' in outputs[4]
