"""Pairs drawn by a diffusers synthesiser, and a stand-in for its images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.drawn_jobs import (
    REFERENCES,
    SIZE,
    recipe,
)
from builders.tiny_sdxl import write_sdxl
from stylear.curate.synthesize import open_synthesizer
from stylear.curate.synthesize.diffusers.synthesizer import (
    DrawnImage,
)
from stylear.pair import Pair


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sdxl(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture
def synthesizer(folder: Path) -> Any:
    return open_synthesizer(recipe(folder), REFERENCES)


def made(synthesizer: Any, jobs: list[Any]) -> list[Pair]:
    pairs: list[Pair] = synthesizer([(job, b"") for job in jobs])
    assert [pair.key for pair in pairs] == [job.key for job in jobs]
    return pairs


def blank(batch: Any) -> list[DrawnImage]:
    """One grey image a job, its level that of the prompt's length."""
    return [DrawnImage(np.full((SIZE, SIZE, 3), len(j.prompt) / 10, np.float32)) for j in batch]
