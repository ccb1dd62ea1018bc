"""Pictures that a model draws itself for prompts and styles of a corpus, for preference pairs and rewards.

J jobs, S samples of a job, h w code grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stylear.errors import CorpusError
from stylear.model.style_model import StyleModel
from stylear.pair import digest
from stylear.sampling.generate import decode_codes, sample_codes
from stylear.train.data import EncodedSet


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt, and the row of the training image that shows its style."""

    number: int
    caption: str
    group: str
    row: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a model draws: seed, samples of a job, and the settings of `sample_codes`."""

    seed: int
    samples: int
    guidance: float
    top_k: int
    temperature: float
    batch_size: int
    style_guidance: float | None = None


def plan_jobs(data: EncodedSet, count: int, seed: int) -> list[Job]:
    """Draw prompts of the corpus, each with a style; styles and the images that show them take turns.

    Raises CorpusError if the corpus has no stylized pairs.
    """
    kinds, groups = data.read_column("kind"), data.read_column("group")
    stylized = sorted({g for g, kind in zip(groups, kinds, strict=True) if kind == "stylized"})
    if not stylized:
        raise CorpusError(
            "train/: expected stylized pairs to take styles from, found none",
            hint="give --corpus a corpus with stylized pairs",
        )
    captions = sorted(set(data.read_column("caption")))
    rng = np.random.default_rng(seed)
    jobs = []
    for number in range(count):
        turn, style = divmod(number, len(stylized))
        rows = data.groups[stylized[style]]
        caption = captions[int(rng.integers(len(captions)))]
        jobs.append(Job(number, caption, stylized[style], int(rows[turn % len(rows)])))
    return jobs


@torch.inference_mode()
def draw_codes(
    model: StyleModel,
    data: EncodedSet,
    jobs: Sequence[Job],
    sampling: Sampling,
    on_batch: Callable[[int], None] | None = None,
) -> Tensor:
    """Codes (J S, h, w) of these jobs, S consecutive ones per job; each depends on its job and seed alone."""
    codes = []
    drawn = [(job, sample) for job in jobs for sample in range(sampling.samples)]
    for first in range(0, len(drawn), sampling.batch_size):
        part = drawn[first : first + sampling.batch_size]
        styles: list[Tensor | None] = [None] * len(part)
        if model.resampler is not None and data.has_features:
            features = data.read_features([job.row for job, _ in part])
            styles = list(model.resampler(features.to(model.device)))
        draws = torch.stack(
            [
                torch.rand(*model.grid, generator=make_generator(sampling.seed, job.number, sample))
                for job, sample in part
            ]
        ).double()
        codes.append(
            sample_codes(
                model.decoder,
                model.layout,
                [model.encode_prompt(job.caption) for job, _ in part],
                styles,
                draws,
                [model.encode_prompt("")] * len(part),
                guidance=sampling.guidance,
                style_guidance=sampling.style_guidance,
                top_k=sampling.top_k,
                temperature=sampling.temperature,
            )
        )
        if on_batch is not None:
            on_batch(len(part))
    return torch.cat(codes)


def decode_in_batches(model: StyleModel, codes: Tensor, batch_size: int) -> list[Image.Image]:
    """Pictures of image codes (B, h, w)."""
    starts = range(0, len(codes), batch_size)
    return [p for start in starts for p in decode_codes(model, codes[start : start + batch_size])]


def make_generator(seed: int, number: int, sample: int) -> torch.Generator:
    """The random generator of one sample of one job."""
    return torch.Generator().manual_seed(int(digest("sample", seed, number, sample)[:15], 16))


class StylePictures:
    """Training images of styles, decoded from their VQ codes, so that they are of the quality of samples."""

    def __init__(self, model: StyleModel, data: EncodedSet, count: int) -> None:
        self.model, self.data, self.count = model, data, count
        self.pictures: dict[str, list[Image.Image]] = {}

    def of(self, group: str) -> list[Image.Image]:
        """At most `count` images of a style, evenly spaced over its training images."""
        if group not in self.pictures:
            rows = self.data.groups[group]
            picked = rows[
                np.arange(min(self.count, len(rows))) * len(rows) // min(self.count, len(rows))
            ]
            self.pictures[group] = decode_codes(self.model, self.data.read_codes(picked))
        return self.pictures[group]
