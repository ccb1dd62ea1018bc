"""The commands of docs/forget.md work as printed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from builders.page_commands import page_commands, run_command

from stylear.curate.corpus.shards import iter_pairs


def test_the_commands_of_the_page_work_as_printed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "my-corpus")
    shutil.copytree(finished.parent / "photos", tmp_path / "photos")
    (tmp_path / "runs").mkdir()
    (tmp_path / "takedown.txt").write_text("folder:photos/p005.png\n")
    monkeypatch.chdir(tmp_path)
    commands = page_commands("forget.md")
    assert [line.split()[2] for line in commands] == [*["forget"] * 4, "audit", "explain"]
    outputs = [run_command(line).stdout for line in commands]
    assert outputs[0] == outputs[1]
    sources = {pair.origin.source: pair.kept for pair in iter_pairs(tmp_path / "my-corpus" / "raw")}
    assert not {f"folder:photos/p00{n}.png" for n in (2, 3, 5)} & set(sources)
    assert "folder:photos/p004.png" in sources
    assert "forgotten" in outputs[4]
    assert "folder:photos/p004.png" in outputs[5]
