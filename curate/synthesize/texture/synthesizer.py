"""The synthesisers that stylise a content image: decode, run the backend, encode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylear.curate.engine.progress import report_progress
from stylear.curate.recipe.synthesizers import (
    BackendSettings,
    PatchSettings,
    RenderSettings,
    StatisticsSettings,
)
from stylear.curate.references import StyleReference
from stylear.curate.synthesize.backends import patch, render, statistics
from stylear.curate.synthesize.job import (
    VERSIONS,
    Encoding,
    Job,
    Pixels,
    decode_square,
    make_stylized_pair,
)
from stylear.curate.synthesize.threads import pin_thread_count
from stylear.pair import Pair, Scalar


class TextureSynthesizer:
    """Stylises content images one by one; batch size and order change no image."""

    def __init__(
        self,
        backend: str,
        settings: BackendSettings,
        references: Mapping[str, StyleReference],
        encoding: Encoding,
    ) -> None:
        self.backend, self.settings, self.encoding = backend, settings, encoding
        self.details: dict[str, Scalar] = {
            "version": VERSIONS[backend],
            **settings.model_dump(mode="json", exclude={"batch_size"}),
        }
        self._references = references
        self._pixels: dict[str, Tensor] = {}

    def __call__(self, jobs: Sequence[tuple[Job, bytes]]) -> list[Pair]:
        """One pair for each job, in order; a content image that does not decode gives a dropped pair."""
        done: dict[str, Pair] = {}
        ready: list[tuple[Job, Tensor]] = []
        for job, data in jobs:
            try:
                ready.append((job, to_tensor(decode_square(data, self.encoding.size))))
            except OSError as error:
                broken = {**self.details, "error": str(error)[:200]}
                done[job.key] = make_stylized_pair(job, None, self.encoding, broken, "bad-content")
                report_progress()
        with pin_thread_count(1), torch.no_grad():
            for job, content in ready:
                done[job.key] = self._stylize(job, content)
                report_progress()
        return [done[job.key] for job, _ in jobs]

    def _stylize(self, job: Job, content: Tensor) -> Pair:
        """The pair of one job."""
        if isinstance(self.settings, RenderSettings):
            drawn = render.stylize(content, job.reference, job.seed)
            return make_stylized_pair(job, to_pixels(drawn), self.encoding, self.details)
        details, reference = self.details, self._reference_pixels(job)
        if isinstance(self.settings, PatchSettings):
            picture = patch.stylize(content, reference, job.seed, self.settings)
            details = {**details, "content_weight": patch.content_weight(job.seed, self.settings)}
        else:
            assert isinstance(self.settings, StatisticsSettings)
            picture = statistics.stylize(content, reference, job.seed, self.settings)
        return make_stylized_pair(job, to_pixels(picture), self.encoding, details)

    def _reference_pixels(self, job: Job) -> Tensor:
        """The reference of a job, (3, s, s) in [0, 1], decoded once and cached."""
        if job.reference not in self._pixels:
            settings: Any = self.settings
            size = settings.reference_size or self.encoding.size
            self._pixels[job.reference] = to_tensor(
                decode_square(self._references[job.reference].image, size)
            )
        return self._pixels[job.reference]


def to_tensor(pixels: Pixels) -> Tensor:
    """(H, W, 3) as (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def to_pixels(image: Tensor) -> Pixels:
    """(3, H, W) as (H, W, 3)."""
    array: Pixels = image.permute(1, 2, 0).contiguous().numpy()
    return array
