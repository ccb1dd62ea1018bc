"""A tiny SDXL in the genuine format, and a synthesiser on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders.drawn_jobs import REFERENCES, recipe
from builders.tiny_sdxl import write_sdxl

from stylear.curate.synthesize import open_synthesizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sdxl(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture
def synthesizer(folder: Path) -> Any:
    return open_synthesizer(recipe(folder), REFERENCES)
