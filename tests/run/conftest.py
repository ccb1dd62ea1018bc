"""The corpus that the tests of a run look at, and a copy to do things to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from builders.pictures_folder import make_folders, make_recipe

from stylear.curate import run as runner


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders, a recipe, and the corpus that it makes."""
    root = tmp_path_factory.mktemp("run")
    make_folders(root)
    runner.run(make_recipe(root), root / "corpus", workers=1)
    return root


@pytest.fixture
def built(home: Path, tmp_path: Path) -> Path:
    """A copy of that corpus to do things to; its sources are those of `home`."""
    return Path(shutil.copytree(home / "corpus", tmp_path / "corpus"))
