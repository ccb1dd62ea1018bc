"""The drawings of the mini corpus as arrays, raw and in the training styles, to train the mini models on.

Axis legend: N pictures, H = W = 64 px, 3 channels (RGB).
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
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


def in_styles(raw: Pictures, copies: int, variants: int, seed: int) -> Pictures:
    """Each drawing `copies` times in a random variant (out of `variants`) of a random training family."""
    generator = np.random.default_rng(seed)
    families = sorted(TRAIN_FAMILIES)
    pixels, captions, styles = [], [], []
    for index in track(range(copies * len(raw)), "render styles", unit="pictures"):
        family = families[int(generator.integers(len(families)))]
        variant = int(generator.integers(variants))
        drawing = raw.pixels[index % len(raw)]
        if generator.random() < 0.5:
            drawing = np.ascontiguousarray(drawing[:, ::-1])
        pixels.append(render(drawing, make_style(family, variant), seed=index))
        captions.append(raw.captions[index % len(raw)])
        styles.append(f"{family}/{variant}")
    return Pictures(np.stack(pixels), captions, styles)


def joined(*parts: Pictures) -> Pictures:
    """All parts, one after the other."""
    return Pictures(
        np.concatenate([part.pixels for part in parts]),
        [caption for part in parts for caption in part.captions],
        [style for part in parts for style in part.styles],
    )


def to_tensor(pixels: Pixels) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in [-1, 1]."""
    return (
        torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    )


def jittered(pixels: Tensor, generator: torch.Generator, most: int = 4) -> Tensor:
    """Each picture moved by up to `most` pixels, its border repeated, and half of them mirrored."""
    size = pixels.shape[-1]
    padded = F.pad(pixels, (most, most, most, most), mode="replicate")
    moves = torch.randint(0, 2 * most + 1, (len(pixels), 2), generator=generator).tolist()
    flips = (torch.rand(len(pixels), generator=generator) < 0.5).tolist()
    moved = [
        image[:, y : y + size, x : x + size] for image, (y, x) in zip(padded, moves, strict=True)
    ]
    return torch.stack(
        [image.flip(-1) if flip else image for image, flip in zip(moved, flips, strict=True)]
    )
