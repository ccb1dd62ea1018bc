"""A corpus can move: the same inputs give the same bytes in any folder, and a moved corpus goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from builders.pictures_folder import make_folders, make_recipe, settings, tree, write_recipe

from stylear.curate import run as runner
from stylear.curate.audit.auditor import audit
from stylear.curate.recipe import load_recipe

BESIDE = (".lock", "report")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders, a recipe that names them in several ways, and the corpus that it makes."""
    root = tmp_path_factory.mktemp("move") / "first" / "project"
    make_folders(root)
    (root / "recipes").mkdir()
    values = settings(
        raw=[{"type": "folder", "path": "../photos"}],
        references=[{"type": "folder", "path": str(root / "styles")}],
    )
    runner.run(make_recipe(root / "recipes", values), root / "corpus", workers=1)
    return root


def test_the_same_inputs_in_another_folder_give_the_same_manifest(
    home: Path, tmp_path: Path
) -> None:
    other = tmp_path / "second" / "deeper" / "project"
    make_folders(other)
    (other / "recipes").mkdir()
    values = settings(
        raw=[{"type": "folder", "path": "../photos"}],
        references=[{"type": "folder", "path": str(other / "styles")}],
    )
    runner.run(make_recipe(other / "recipes", values), other / "corpus", workers=1)
    assert tree(other / "corpus", BESIDE) == tree(home / "corpus", BESIDE)
    manifest = (other / "corpus" / "manifest.json").read_bytes()
    assert manifest == (home / "corpus" / "manifest.json").read_bytes()


def test_no_hashed_file_holds_an_absolute_path(home: Path) -> None:
    for name, data in tree(home / "corpus").items():
        assert str(home).encode() not in data, name
    text = (home / "corpus" / "recipe.yaml").read_text("utf-8")
    assert ("path: ../photos" in text, "path: ../styles" in text) == (True, True)
    assert (
        ".recipe-folder.json"
        not in json.loads((home / "corpus" / "manifest.json").read_text("utf-8"))["files"]
    )


def test_a_corpus_that_moved_with_its_inputs_continues(home: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(home, tmp_path / "elsewhere"))
    recipe = load_recipe(moved / "corpus" / "recipe.yaml")
    assert recipe.base == moved / "recipes"
    before = tree(moved / "corpus", BESIDE)
    done = runner.run(recipe, moved / "corpus", workers=1)
    assert [result.new for result in done.results] == [0] * 6
    assert tree(moved / "corpus", BESIDE) == before
    assert audit(moved / "corpus").passed


def test_a_corpus_that_moved_alone_finds_its_inputs_and_continues(
    home: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(home / "corpus", tmp_path / "a" / "corpus"))
    recipe = load_recipe(moved / "recipe.yaml")
    assert recipe.base == home / "recipes"
    (moved / "raw" / "00001.tar").unlink()
    (moved / "raw" / "00001.parquet").unlink()
    done = runner.run(recipe, moved, workers=1)
    assert [result.new for result in done.results] == [1, 0, 0, 0, 0, 0]
    assert tree(moved, BESIDE) == tree(home / "corpus", BESIDE)


def test_inputs_that_moved_within_the_recipe_are_known_again(home: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(home, tmp_path / "project"))
    (moved / "data").mkdir()
    (moved / "photos").rename(moved / "data" / "photos")
    values = settings(raw=[{"type": "folder", "path": "data/photos"}])
    recipe = load_recipe(write_recipe(moved, values, "other.yaml"))
    done = runner.run(recipe, moved / "corpus", workers=1)
    assert [result.new for result in done.results] == [0] * 6


def test_a_damaged_note_of_the_folder_is_not_followed(home: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(home / "corpus", tmp_path / "corpus"))
    (moved / ".recipe-folder.json").write_text('{"relative": 3}', "utf-8")
    assert load_recipe(moved / "recipe.yaml").base == moved
