"""The README's commands for one's own pictures do what they say, run as they are printed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from builders.command_tree import lines_of
from builders.page_commands import run_anywhere, shrink_recipe
from builders.pictures_folder import make_folders

ROOT = Path(__file__).parents[2]
SMALL = "--steps 2 --batch-size 4"  # beside what is printed: the same work, less of it


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """The commands of the section on one's own pictures, in order."""
    text = (ROOT / "README.md").read_text("utf-8")
    section = text.split("## Use it on your own pictures")[1].split("\n## ")[0]
    blocks = section.split("```bash")[1:]  # in the text between them commands are only named
    return lines_of("".join(f"```bash{block.split('```')[0]}```\n" for block in blocks))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos and styles, as the README supposes it; the working directory."""
    make_folders(tmp_path, pictures=24, styles=6)
    (tmp_path / "my-style.png").write_bytes(next((tmp_path / "styles").glob("*.png")).read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STYLEAR_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr("stylear.curate.engine.cores", lambda: 1)  # no worker processes
    return tmp_path


def test_the_commands_for_ones_own_pictures_work_as_printed(home: Path, lines: list[str]) -> None:
    """In one process: starting Python eleven times took most of the time."""
    curate = [line for line in lines if line.startswith("stylear curate")]
    names = ["init", "run", "run", "audit", "filter", "query", "export"]
    assert [shlex.split(line)[2] for line in curate] == names
    run_anywhere(curate[0])
    shrink_recipe(home / "house-style.yaml")
    for line in curate[1:]:
        run_anywhere(line)
    manifest = json.loads((home / "my-corpus" / "manifest.json").read_text("utf-8"))
    assert manifest["counts"]["pairs"] > 0
    assert (home / "my-corpus" / "report" / "index.html").is_file()
    assert (home / "my-corpus-hf" / "README.md").read_text("utf-8").startswith("---\n")
    remaining = [line for line in lines if not line.startswith("stylear curate")]
    assert [shlex.split(line)[1] for line in remaining] == [
        "train",
        "train",
        "generate",
        "evaluate",
    ]
    for line in remaining:
        small = SMALL if " train " in line else "--seeds 1" if " evaluate " in line else ""
        run_anywhere(f"{line} {small}")
    assert (home / "pictures" / "grid.png").is_file()
