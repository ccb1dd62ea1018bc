"""The base class of synthesisers that run a diffusers pipeline: batches, retries, metadata.

A subclass opens its pipeline and draws a batch. This class splits jobs into batches, halves a batch that
does not fit into memory, and retries bad images. Threads resize and encode images while the next batch is
drawn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image

from stylear.curate.engine.progress import report_progress
from stylear.curate.references import StyleReference
from stylear.curate.synthesize.diffusers.load import choose_device, choose_dtype
from stylear.curate.synthesize.diffusers.lru_cache import LruCache
from stylear.curate.synthesize.diffusers.metadata import describe_pipeline
from stylear.curate.synthesize.diffusers.tuning import prepare_pipeline
from stylear.curate.synthesize.job import Encoding, Job, Pixels, decode_image, make_stylized_pair
from stylear.curate.synthesize.threads import pin_thread_count
from stylear.errors import SourceError
from stylear.pair import Pair, Scalar

ENCODER_THREADS = 2  # threads that encode images (our choice)
CACHED_IMAGES = 16  # references that are kept as pixels (our choice)


class DrawnImage(NamedTuple):
    """One image that a pipeline drew, (H, W, 3) in [0, 1]."""

    pixels: Pixels
    details: Mapping[str, Scalar] = {}  # metadata of this image alone
    unsafe: bool = False  # a safety checker flagged it


class DiffusionSynthesizer(ABC):
    """Draws jobs with a diffusers pipeline; each image has its own generator, seeded from its key.

    On a CPU the batch size is 1, so that the bits of an image depend on its job alone.
    Raises WeightsError when a model cannot be loaded, RecipeError for impossible settings.
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
        self.batch_size = 1 if self.device == "cpu" else settings.batch_size
        self.batch_size_before_oom: int | None = None
        self._references = references
        self._images = LruCache[Image.Image](CACHED_IMAGES)
        self._threads = settings.threads if self.device == "cpu" else None
        with pin_thread_count(self._threads):
            self.pipeline, hashes = self.open()
            hashes |= prepare_pipeline(self.pipeline, settings, self.device)
        shared = describe_pipeline(self.pipeline, settings, hashes, self.dtype, self.device)
        self.details: dict[str, Scalar] = {**shared, **self.metadata()}

    @abstractmethod
    def open(self) -> tuple[Any, dict[str, str]]:
        """The pipeline in main memory, in `self.dtype`, and the sha256 of its files by metadata key."""

    @abstractmethod
    def draw(self, batch: Sequence[Job]) -> list[DrawnImage]:
        """The images of a batch, in order. The batch has one reference unless `mixes_references`.

        Called in inference mode. Take noise from `self.generators(batch)`.
        """

    def metadata(self) -> dict[str, Scalar]:
        """Metadata of every image, beyond the settings, the hashes and the sampler."""
        return {}

    def job_metadata(self, job: Job) -> dict[str, Scalar]:
        """Metadata of one job, e.g. the length of its prompt in tokens."""
        return {}

    def generators(self, batch: Sequence[Job]) -> list[torch.Generator]:
        """A random generator for each image, on the CPU: its noise is the same on every device."""
        return [torch.Generator("cpu").manual_seed(job.seed) for job in batch]

    def reference_image(self, reference: str) -> Image.Image:
        """A style reference as an upright sRGB image. Raises SourceError if it does not decode."""

        def read() -> Image.Image:
            style_reference = self._references[reference]
            try:
                return decode_image(style_reference.image)
            except OSError as error:
                raise SourceError(
                    f"style reference {style_reference.path} is not a readable image: {error}",
                    hint="replace or remove the file",
                ) from error

        return self._images.get_or_make(reference, read)

    def run_pipeline(self, **arguments: Any) -> list[DrawnImage]:
        """The images of one call of the pipeline."""
        result = self.pipeline(**arguments, output_type="np")
        flags = getattr(result, "nsfw_content_detected", None)
        images = np.asarray(result.images, dtype=np.float32)
        if flags is None:
            return [DrawnImage(image) for image in images]
        return [
            DrawnImage(image, {"safety": "flagged" if flag else "passed"}, bool(flag))
            for image, flag in zip(images, flags, strict=True)
        ]

    def __call__(self, jobs: Sequence[tuple[Job, bytes]]) -> list[Pair]:
        """One pair for each job, in order; the content bytes are ignored."""
        done: dict[str, Pair] = {}
        waiting: deque[Future[Pair]] = deque()
        with ThreadPoolExecutor(ENCODER_THREADS) as encoders:
            for batch in self._batches([job for job, _ in jobs]):
                for job, drawn, details in self._draw_with_retries(batch):
                    waiting.append(encoders.submit(self._make_pair, job, drawn, details))
                    report_progress()
                while len(waiting) > 4 * self.batch_size + ENCODER_THREADS:  # pixels are large
                    pair = waiting.popleft().result()
                    done[pair.key] = pair
            done.update((future.result().key, future.result()) for future in waiting)
        return [done[job.key] for job, _ in jobs]

    def _batches(self, jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
        """The jobs in batches of at most `batch_size`, which shrinks when memory runs out."""
        groups = [list(jobs)]
        if not self.mixes_references:
            ordered = sorted(jobs, key=lambda job: job.reference)  # stable
            groups = [list(same) for _, same in groupby(ordered, lambda job: job.reference)]
        for group in groups:
            while group:
                batch, group = group[: self.batch_size], group[self.batch_size :]
                yield batch

    def _draw_with_retries(
        self, batch: Sequence[Job]
    ) -> Iterator[tuple[Job, DrawnImage | None, dict[str, Scalar]]]:
        """Draw a batch and retry bad images: each job, its image (None: out of memory), its metadata."""
        for job, drawn, size in self._draw_or_halve(batch):
            attempt, problem = 0, find_problem(drawn)
            details: dict[str, Scalar] = {}
            while problem and drawn is not None and attempt < self.settings.retries:
                attempt += 1
                details = {"attempt": attempt, "retried_after": problem}
                [(job, drawn, size)] = self._draw_or_halve([replace(job, attempt=attempt)])
                problem = find_problem(drawn)
            details |= {"batch_size": size, "batch_size_before_oom": self.batch_size_before_oom}
            yield job, drawn, {**self.job_metadata(job), **details}

    def _draw_or_halve(self, batch: Sequence[Job]) -> list[tuple[Job, DrawnImage | None, int]]:
        """Draw a batch, halving it until it fits into memory: each job, its image, its batch size."""
        with pin_thread_count(self._threads):
            images = self._try_draw(batch)
        if images is not None:
            return [(job, drawn, len(batch)) for job, drawn in zip(batch, images, strict=True)]
        if len(batch) == 1:
            return [(batch[0], None, 1)]
        half = (len(batch) + 1) // 2
        self.batch_size_before_oom = self.batch_size_before_oom or self.batch_size
        self.batch_size = min(self.batch_size, half)
        return [*self._draw_or_halve(batch[:half]), *self._draw_or_halve(batch[half:])]

    def _try_draw(self, batch: Sequence[Job]) -> list[DrawnImage] | None:
        """The images of a batch, or None when memory ran out."""
        try:
            with torch.inference_mode():
                return self.draw(batch)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # outside the handler the frames of the failed call are released, and its tensors with them
        vae = getattr(self.pipeline, "vae", None)
        if self.dtype == torch.float16 and vae is not None:
            vae.to(self.dtype)  # diffusers lifts it to float32 while decoding
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def _make_pair(self, job: Job, drawn: DrawnImage | None, details: dict[str, Scalar]) -> Pair:
        """The pair of a job: crop, resize and encode its image."""
        details = {**self.details, **details}
        if drawn is None:
            return make_stylized_pair(job, None, self.encoding, details, "out-of-memory")
        details |= drawn.details
        if drawn.unsafe:
            return make_stylized_pair(job, None, self.encoding, details, "unsafe")
        return make_stylized_pair(
            job, crop_to_square(drawn.pixels, self.encoding.size), self.encoding, details
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch reports that a GPU or the machine ran out of memory."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


def find_problem(drawn: DrawnImage | None) -> str | None:
    """The reason to draw an image again (unsafe, not-finite), or None."""
    if drawn is None:
        return None
    if drawn.unsafe:
        return "unsafe"
    return None if np.isfinite(drawn.pixels).all() else "not-finite"


def crop_to_square(pixels: Pixels, size: int) -> Pixels:
    """The central square of an image (H, W, 3), resized to `size` x `size` pixels; NaN stays NaN."""
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
