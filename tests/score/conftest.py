"""What several test modules of scores share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from builders.encoder_scores import write_scored_corpus
from builders.tiny_clip import write_tiny_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny", seed=3)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scored_corpus(tmp_path_factory.mktemp("encoders"))


@pytest.fixture
def built(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home / "corpus", tmp_path / "corpus"))
