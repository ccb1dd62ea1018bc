"""What every synthesiser that runs a diffusers pipeline shares: batches, retries, lineage.

A subclass opens its pipeline and draws a batch; everything that can happen to a batch happens here.
Images are resized and encoded in a thread, so that the next batch does not wait for them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image

from stylear.curate.recipe.synthesizers import DiffusionSettings
from stylear.curate.references import StyleReference
from stylear.curate.synthesize.diffusers.lineage import lineage
from stylear.curate.synthesize.diffusers.load import choose_device, choose_dtype
from stylear.curate.synthesize.diffusers.lru_cache import Remembered
from stylear.curate.synthesize.diffusers.tuning import prepare
from stylear.curate.synthesize.job import Encoding, Job, Pixels, picture, stylized_pair
from stylear.errors import SourceError
from stylear.pair import Pair, Scalar

ENCODERS = 2  # threads that encode images (ours)
PICTURES = 16  # references that are kept as pixels (ours)


class Drawn(NamedTuple):
    """One image as a pipeline gave it, (H, W, 3) in [0, 1], and what is to be told of it alone."""

    pixels: Pixels
    details: Mapping[str, Scalar] = {}
    unsafe: bool = False  # a safety checker flagged it


class Diffusion(ABC):
    """Draws jobs through a diffusers pipeline; one generator an image, seeded from its key.

    On a CPU every image is drawn by itself, so that its bits depend on its job alone.
    Raises WeightsError when what it needs cannot be loaded, RecipeError for impossible settings.
    """

    mixes_references: ClassVar[bool] = False  # whether one batch may hold several references

    def __init__(
        self,
        settings: Any,
        references: Mapping[str, StyleReference],
        encoding: Encoding,
    ) -> None:
        self.settings: Any = settings
        self.encoding = encoding
        self.device = choose_device(settings.device)
        self.dtype = choose_dtype(settings.dtype, self.device)
        self.together = 1 if self.device == "cpu" else settings.batch_size
        self.halved_from: int | None = None  # what `together` was before memory ran out
        self._references = references
        self._pictures = Remembered[Image.Image](PICTURES)
        with one_size_of_threads(settings, self.device):
            self.pipeline, hashes = self.open()
            hashes |= prepare(self.pipeline, settings, self.device)
        shared = lineage(self.pipeline, settings, hashes, self.dtype, self.device)
        self.details: dict[str, Scalar] = {**shared, **self.told()}

    @abstractmethod
    def open(self) -> tuple[Any, dict[str, str]]:
        """The pipeline in main memory, in `self.dtype`, and the sha256 of all it was made of."""

    @abstractmethod
    def draw(self, batch: Sequence[Job]) -> list[Drawn]:
        """The images of a batch, in order; of one reference unless `mixes_references`.

        Called in inference mode. Noise comes from `self.generators(batch)`.
        """

    def told(self) -> dict[str, Scalar]:
        """What the lineage has to say beyond the settings, the hashes and the sampler."""
        return {}

    def about(self, job: Job) -> dict[str, Scalar]:
        """What the lineage has to say of one job, e.g. the length of its prompt."""
        return {}

    def generators(self, batch: Sequence[Job]) -> list[torch.Generator]:
        """A source of noise for each image. On the CPU, so that the noise is the same everywhere."""
        return [torch.Generator("cpu").manual_seed(job.seed) for job in batch]

    def picture(self, reference: str) -> Image.Image:
        """A reference as an image, upright and in sRGB. Raises SourceError."""

        def read() -> Image.Image:
            found = self._references[reference]
            try:
                return picture(found.image)
            except OSError as error:
                raise SourceError(
                    f"style reference {found.path} is not a readable image: {error}",
                    hint="replace or remove the file",
                ) from error

        return self._pictures.get(reference, read)

    def run(self, **arguments: Any) -> list[Drawn]:
        """The images that one call of the pipeline gives."""
        result = self.pipeline(**arguments, output_type="np")
        flags = getattr(result, "nsfw_content_detected", None)
        images = np.asarray(result.images, dtype=np.float32)
        if flags is None:
            return [Drawn(image) for image in images]
        return [
            Drawn(image, {"safety": "flagged" if flag else "passed"}, bool(flag))
            for image, flag in zip(images, flags, strict=True)
        ]

    def __call__(self, jobs: Sequence[tuple[Job, bytes]]) -> list[Pair]:
        """One pair a job, in order; the content bytes are not looked at."""
        done: dict[str, Pair] = {}
        waiting: deque[Future[Pair]] = deque()
        with ThreadPoolExecutor(ENCODERS) as encoders:
            for batch in self._batches([job for job, _ in jobs]):
                for job, drawn, details in self._finished(batch):
                    waiting.append(encoders.submit(self._pair, job, drawn, details))
                while len(waiting) > 4 * self.together + ENCODERS:  # pixels are large
                    pair = waiting.popleft().result()
                    done[pair.key] = pair
            done.update((future.result().key, future.result()) for future in waiting)
        return [done[job.key] for job, _ in jobs]

    def _batches(self, jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
        """The jobs in runs of at most `together`, which may shrink meanwhile."""
        groups = [list(jobs)]
        if not self.mixes_references:
            ordered = sorted(jobs, key=lambda job: job.reference)  # stable
            groups = [list(same) for _, same in groupby(ordered, lambda job: job.reference)]
        for group in groups:
            while group:
                batch, group = group[: self.together], group[self.together :]
                yield batch

    def _finished(
        self, batch: Sequence[Job]
    ) -> Iterator[tuple[Job, Drawn | None, dict[str, Scalar]]]:
        """Each job of a batch as it was drawn in the end; None where the memory was too small."""
        for job, drawn, size in self._drawn(batch):
            attempt, why = 0, problem(drawn)
            details: dict[str, Scalar] = {}
            while why and drawn is not None and attempt < self.settings.retries:
                attempt += 1
                details = {"attempt": attempt, "retried_after": why}
                [(job, drawn, size)] = self._drawn([replace(job, attempt=attempt)])
                why = problem(drawn)
            details |= {"batch": size, "batch_halved_from": self.halved_from}
            yield job, drawn, {**self.about(job), **details}

    def _drawn(self, batch: Sequence[Job]) -> list[tuple[Job, Drawn | None, int]]:
        """A batch drawn, halved for as long as it does not fit into memory; with its final size."""
        with one_size_of_threads(self.settings, self.device):
            images = self._try(batch)
        if images is not None:
            return [(job, drawn, len(batch)) for job, drawn in zip(batch, images, strict=True)]
        if len(batch) == 1:
            return [(batch[0], None, 1)]
        half = (len(batch) + 1) // 2
        self.halved_from = self.halved_from or self.together
        self.together = min(self.together, half)
        return [*self._drawn(batch[:half]), *self._drawn(batch[half:])]

    def _try(self, batch: Sequence[Job]) -> list[Drawn] | None:
        """The images of a batch, or None when memory ran out."""
        try:
            with torch.inference_mode():
                return self.draw(batch)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        # here the failed call's frames, and with them its tensors, are gone
        vae = getattr(self.pipeline, "vae", None)
        if self.dtype == torch.float16 and vae is not None:
            vae.to(self.dtype)  # diffusers lifts it to float32 while decoding
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def _pair(self, job: Job, drawn: Drawn | None, details: dict[str, Scalar]) -> Pair:
        """The pair of a job, its image resized and encoded."""
        details = {**self.details, **details}
        if drawn is None:
            return stylized_pair(job, None, self.encoding, details, "out-of-memory")
        details |= drawn.details
        if drawn.unsafe:
            return stylized_pair(job, None, self.encoding, details, "unsafe")
        return stylized_pair(job, fit(drawn.pixels, self.encoding.size), self.encoding, details)


@contextmanager
def one_size_of_threads(settings: DiffusionSettings, device: str) -> Iterator[None]:
    """As many torch threads as the settings say on a CPU: sums over several depend on how many."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(settings.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def out_of_memory(error: BaseException) -> bool:
    """Whether torch says that memory ran out, of a GPU or of the machine."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


def problem(drawn: Drawn | None) -> str | None:
    """Why an image is worth another try."""
    if drawn is None:
        return None
    if drawn.unsafe:
        return "unsafe"
    return None if np.isfinite(drawn.pixels).all() else "not-finite"


def fit(pixels: Pixels, size: int) -> Pixels:
    """An image (H, W, 3) as a square of `size` pixels a side, cut from its middle; NaN stays NaN."""
    if pixels.shape[:2] == (size, size) or not np.isfinite(pixels).all():
        return pixels
    height, width = pixels.shape[:2]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    channels = [
        Image.fromarray(np.ascontiguousarray(pixels[..., c])).resize(
            (size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
        )
        for c in range(3)
    ]
    resized: Pixels = np.stack([np.asarray(channel) for channel in channels], axis=-1)
    return resized
