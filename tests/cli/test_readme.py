"""The README's commands for one's own pictures do what they say, run as they are printed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from builders.command_tree import lines_of
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


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos and styles, as the README supposes it."""
    home = tmp_path_factory.mktemp("readme")
    make_folders(home, pictures=40, styles=8)
    (home / "my-style.png").write_bytes(next((home / "styles").glob("*.png")).read_bytes())
    return home


def run(home: Path, line: str) -> str:
    """Run a printed line as it stands, with a `stylear` that needs no installation."""
    words = shlex.split(line, comments=True)[1:]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "STYLEAR_MODELS": str(home / "models")}
    result = subprocess.run(
        [sys.executable, "-m", "stylear", *words],
        cwd=home, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, f"{line}\n{result.stderr}"
    return result.stdout


def test_the_commands_for_ones_own_pictures_work_as_printed(home: Path, lines: list[str]) -> None:
    curate = [line for line in lines if line.startswith("stylear curate")]
    names = ["init", "run", "run", "audit", "filter", "query", "export"]
    assert [shlex.split(line)[2] for line in curate] == names
    run(home, curate[0])
    recipe = (home / "house-style.yaml").read_text("utf-8")
    (home / "house-style.yaml").write_text(recipe.replace("size: 256", "size: 64"), "utf-8")
    for line in curate[1:]:
        run(home, line)
    manifest = json.loads((home / "my-corpus" / "manifest.json").read_text("utf-8"))
    assert manifest["counts"]["pairs"] > 0
    assert (home / "my-corpus" / "report" / "index.html").is_file()
    assert (home / "my-corpus-hf" / "README.md").read_text("utf-8").startswith("---\n")
    rest = [line for line in lines if not line.startswith("stylear curate")]
    assert [shlex.split(line)[1] for line in rest] == ["train", "train", "generate", "evaluate"]
    for line in rest:
        small = SMALL if " train " in line else "--seeds 1" if " evaluate " in line else ""
        run(home, f"{line} {small}")
    assert (home / "pictures" / "grid.png").is_file()
