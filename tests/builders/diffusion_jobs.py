"""Pairs drawn by a diffusers synthesiser, and a stand-in for its images."""

from __future__ import annotations

from typing import Any

import numpy as np

from builders.drawn_jobs import (
    SIZE,
)
from stylear.curate.synthesize.diffusers.synthesizer import (
    DrawnImage,
)
from stylear.pair import Pair


def draw_jobs(synthesizer: Any, jobs: list[Any]) -> list[Pair]:
    pairs: list[Pair] = synthesizer([(job, b"") for job in jobs])
    assert [pair.key for pair in pairs] == [job.key for job in jobs]
    return pairs


def draw_blank(batch: Any) -> list[DrawnImage]:
    """One grey image a job, its level that of the prompt's length."""
    return [DrawnImage(np.full((SIZE, SIZE, 3), len(j.prompt) / 10, np.float32)) for j in batch]
