"""Job: one image to synthesise; and turning its pixels into a stylized pair."""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from stylear.curate.corpus.tombstones import blank_pair
from stylear.curate.fetch.ingest import ImageRejected, flatten, to_srgb
from stylear.curate.fetch.pixels import encode
from stylear.pair import Origin, Pair, Scalar, derive_seed, digest

STAGE = "synthesize"
# raise when the same settings give other pixels
VERSIONS = {"patch": 1, "statistics": 1, "render": 1}
Pixels = NDArray[np.float32]  # (H, W, 3) in [0, 1]


@dataclass(frozen=True, slots=True)
class Job:
    """One candidate to draw: a prompt, a style reference and, for some backends, a content image."""

    backend: str
    prompt: str
    reference: str  # id
    reference_sha256: str
    content: str  # content id that decides the split
    parent: str | None  # key of the raw pair; None when the prompt comes from a list
    candidate: int  # 0-based within the group
    settings: str  # canonical JSON of the backend's settings
    prompt_metadata: Mapping[str, Scalar] = field(default_factory=dict)  # not part of the key
    attempt: int = 0  # the number of the retry; changes the seed, not the key
    forgotten_group: str | None = None  # of a parent that was forgotten: the prompt is gone
    group: str = field(init=False)
    key: str = field(init=False)

    def __post_init__(self) -> None:
        group = self.forgotten_group or digest(
            "stylized",
            self.backend,
            self.settings,
            self.reference_sha256,
            self.parent,
            self.prompt,
        )
        object.__setattr__(self, "group", group)
        object.__setattr__(self, "key", digest(group, self.candidate))

    @property
    def seed(self) -> int:
        """The seed of this image; depends on the key and the attempt alone."""
        return derive_seed(f"{self.key}:{self.attempt}" if self.attempt else self.key)


class CandidateJobs(Sequence[Job]):
    """The jobs of candidate groups, `candidates` in a row for each group, created on access."""

    def __init__(self, candidates: int) -> None:
        self._candidates = candidates

    @property
    @abstractmethod
    def num_groups(self) -> int: ...

    @abstractmethod
    def create_job(self, group: int, candidate: int) -> Job:
        """The job of one candidate of a group, both 0-based."""

    def __len__(self) -> int:
        return self._candidates * self.num_groups

    @overload
    def __getitem__(self, at: int) -> Job: ...
    @overload
    def __getitem__(self, at: slice) -> list[Job]: ...
    def __getitem__(self, at: int | slice) -> Job | list[Job]:
        if isinstance(at, slice):
            return [self[number] for number in range(len(self))[at]]
        return self.create_job(*divmod(range(len(self))[at], self._candidates))


@dataclass(frozen=True, slots=True)
class Encoding:
    """The size and format in which finished images are stored."""

    size: int  # side in pixels
    format: Literal["png", "jpg", "webp"] = "png"
    quality: int | None = None

    def encode(self, pixels: Pixels) -> bytes:
        """Encode pixels (H, W, 3) in [0, 1]; the same pixels give the same bytes."""
        levels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
        return encode(Image.fromarray(levels), self.format, self.quality)


def decode_image(data: bytes) -> Image.Image:
    """Decode bytes to an upright sRGB image on white. Raises OSError if they are not an image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return flatten(to_srgb(ImageOps.exif_transpose(image)), "#ffffff")
    except (
        ImageRejected,
        ValueError,
        SyntaxError,
        EOFError,
        Image.DecompressionBombError,
    ) as error:
        raise OSError(str(error)) from error


def decode_square(data: bytes, size: int) -> Pixels:
    """Decode bytes to (size, size, 3) in [0, 1], centre-cropped to a square.

    Raises OSError if they are not an image.
    """
    square = decode_image(data)
    if square.size != (size, size):
        side = min(square.size)
        left, top = (square.width - side) // 2, (square.height - side) // 2
        square = square.resize(
            (size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
        )
    return np.asarray(square, dtype=np.float32) / np.float32(255)


def make_stylized_pair(
    job: Job,
    pixels: Pixels | None,
    encoding: Encoding,
    details: Mapping[str, Scalar],
    reason: str = "not-synthesized",
) -> Pair:
    """The pair of `job`: dropped with `reason` if `pixels` is None, with not-finite if they have NaN."""
    details = {
        "prompt": job.prompt,
        "candidate": job.candidate,
        "group": job.group,
        "seed": job.seed,
        **job.prompt_metadata,
        **details,
    }
    finite = pixels is not None and bool(np.isfinite(pixels).all())
    pair = Pair(
        key=job.key,
        caption=job.prompt,
        image=encoding.encode(pixels) if pixels is not None and finite else b"",
        origin=Origin(
            kind="stylized",
            source=f"synthesizer:{job.backend}",
            content=job.content,
            parent=job.parent,
            reference=job.reference,
            reference_sha256=job.reference_sha256,
            details=details,
        ),
    )
    if pixels is None:
        return pair.drop(STAGE, reason)
    return pair if finite else pair.drop(STAGE, "not-finite")


def make_forgotten_pair(job: Job) -> Pair:
    """The pair of a job whose image was forgotten; it is not drawn again."""
    origin = Origin(
        kind="stylized",
        source=f"synthesizer:{job.backend}",
        content="",
        parent=job.parent,
        reference=job.reference,
        reference_sha256=job.reference_sha256,
    )
    return blank_pair(Pair(job.key, "", b"", origin))
