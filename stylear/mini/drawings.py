"""The drawings of the mini corpus as arrays, raw and in the training styles, to train the mini models on.

Axis legend: N pictures, H = W = 64 px, 3 channels (RGB).
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from stylear.console import track
from stylear.errors import SourceError
from stylear.mini.styles import TRAIN_FAMILIES, make_style, render

CORPUS = Path(__file__).parent / "corpus"
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures with their captions. `styles` is "" for a raw drawing, else `family/variant`."""

    pixels: Pixels  # (N, H, W, 3)
    captions: list[str]
    styles: list[str]

    def __len__(self) -> int:
        return len(self.captions)


def drawings(split: str, directory: Path = CORPUS) -> Pictures:
    """The raw drawings of a split: `train`, or `val` (second hands that no mini model is trained on)."""
    shards = sorted(directory.glob("*.tar"))
    if not shards:
        raise SourceError(f"{directory}: no shards found", hint="run `make mini-corpus`")
    pixels, captions = [], []
    for shard in shards:
        for image_bytes, record in samples(shard):
            if record["details"]["split"] == split:
                with Image.open(io.BytesIO(image_bytes)) as image:
                    pixels.append(np.asarray(image.convert("RGB")))
                captions.append(record["caption"])
    return Pictures(np.stack(pixels), captions, [""] * len(captions))


def samples(shard: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Image bytes and record of each sample of an embedded shard."""
    with tarfile.open(shard, "r:") as tar:
        for _, members in groupby(tar, key=lambda member: member.name.partition(".")[0]):
            parts = {}
            for member in members:
                stream = tar.extractfile(member)
                assert stream is not None  # the package's own file
                parts[member.name.partition(".")[2]] = stream.read()
            image = next(parts[ext] for ext in ("webp", "png", "jpg") if ext in parts)
            yield image, json.loads(parts["json"])


def in_styles(raw: Pictures, copies: int, variants: int, seed: int, shift: int = 0) -> Pictures:
    """Each drawing `copies` times, flipped at random and shifted by up to `shift` pixels, in a random
    variant (out of `variants`) of a random training family."""
    generator = np.random.default_rng(seed)
    families = sorted(TRAIN_FAMILIES)
    pixels, captions, styles = [], [], []
    for index in track(range(copies * len(raw)), "render styles", unit="pictures"):
        family = families[int(generator.integers(len(families)))]
        variant = int(generator.integers(variants))
        drawing = augment_drawing(raw.pixels[index % len(raw)], generator, shift)
        pixels.append(render(drawing, make_style(family, variant), seed=index))
        captions.append(raw.captions[index % len(raw)])
        styles.append(f"{family}/{variant}")
    return Pictures(np.stack(pixels), captions, styles)


def augment_drawing(drawing: Pixels, generator: np.random.Generator, shift: int) -> Pixels:
    """Flip a drawing (H, W, 3) at random and shift it by up to `shift` pixels; replicate its border."""
    if generator.random() < 0.5:
        drawing = drawing[:, ::-1]
    if shift:
        padded = np.pad(drawing, ((shift, shift), (shift, shift), (0, 0)), mode="edge")
        y, x = generator.integers(0, 2 * shift + 1, 2).tolist()
        height, width = drawing.shape[:2]
        drawing = padded[y : y + height, x : x + width]
    return np.ascontiguousarray(drawing)


def augment_copies(raw: Pictures, copies: int, seed: int, shift: int) -> Pictures:
    """Each drawing unchanged, and `copies` - 1 times flipped at random and shifted."""
    generator = np.random.default_rng(seed)
    others = [augment_drawing(d, generator, shift) for _ in range(copies - 1) for d in raw.pixels]
    return Pictures(
        np.concatenate([raw.pixels, np.stack(others)]) if others else raw.pixels,
        raw.captions * copies,
        raw.styles * copies,
    )


def select_pictures(pictures: Pictures, rows: Sequence[int]) -> Pictures:
    """The pictures of these rows, in this order."""
    return Pictures(
        pictures.pixels[list(rows)],
        [pictures.captions[row] for row in rows],
        [pictures.styles[row] for row in rows],
    )


def concatenate_pictures(*parts: Pictures) -> Pictures:
    """Concatenate sets of pictures."""
    return Pictures(
        np.concatenate([part.pixels for part in parts]),
        [caption for part in parts for caption in part.captions],
        [style for part in parts for style in part.styles],
    )


def to_tensor(pixels: Pixels | Tensor) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in [-1, 1]."""
    if not isinstance(pixels, Tensor):
        pixels = torch.from_numpy(np.ascontiguousarray(pixels))
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def jitter(pixels: Tensor, generator: torch.Generator, max_shift: int = 4) -> Tensor:
    """Shift pictures (B, C, S, S) by up to `max_shift` pixels, replicate borders, and flip half of them."""
    batch, channels, size, _ = pixels.shape
    padded = F.pad(pixels, (max_shift, max_shift, max_shift, max_shift), mode="replicate")
    device = generator.device
    across, down = torch.randint(
        0, 2 * max_shift + 1, (2, batch, 1), generator=generator, device=device
    )
    mirrored = torch.rand(batch, 1, generator=generator, device=device) < 0.5
    line = torch.arange(size, device=device)
    columns = across + torch.where(mirrored, size - 1 - line, line)
    rows = down + line
    picture = torch.arange(batch, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    return padded[picture, channel, rows[:, None, :, None], columns[:, None, None, :]]
