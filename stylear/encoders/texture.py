"""Texture: a descriptor of the strokes and colours of an image; needs no weights.

Axes: B images, F features. Images are resized to a fixed side, so features of all sizes are comparable.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stylear.encoders.preprocess import Picture, to_rgb

VERSION = 1  # raise if the same image gives other numbers
SIDE = 128  # our choice: side in pixels at which strokes are measured
SCALES = 3  # our choice: SIDE, half, quarter
BLOCK = 8
ANGLES = 8
WEIGHTS = {"strokes": 1.0, "angles": 0.5, "moments": 1.5, "colours": 1.5}  # our choice
# our choice: distance at which the similarity has fallen to 1/e; 0.57 within a style, 1.6 across
WIDTH = 1.0
PREPROCESSING = f"rgb on white, {SIDE} px, Lab, {SCALES} scales, version {VERSION}"

Array = NDArray[np.float32]


def texture_descriptor(pictures: Picture | Sequence[Picture] | Tensor) -> Tensor:
    """Features (B, F) of pictures or of pixels (B, 3, H, W) in [0, 1]; (F,) of one picture.

    Energies of block-DCT bands and of gradient directions at several scales, Lab moments and a Lab
    histogram. Raises SourceError for bytes that are not an image.
    """
    if isinstance(pictures, Tensor):
        levels = (pictures.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
        arrays = [np.ascontiguousarray(p.permute(1, 2, 0).cpu().numpy()) for p in levels]
        return torch.stack([_describe(array) for array in arrays])
    if isinstance(pictures, (bytes, Image.Image, np.ndarray)):
        return _describe(np.asarray(to_rgb(pictures)))
    return torch.stack([_describe(np.asarray(to_rgb(picture))) for picture in pictures])


def texture_similarity(a: Picture | Tensor, b: Picture | Tensor) -> Tensor:
    """exp(-distance) of two pictures or of features (..., F), row by row; 1 for equal ones."""
    first = a if isinstance(a, Tensor) else texture_descriptor(a)
    second = b if isinstance(b, Tensor) else texture_descriptor(b)
    return torch.exp(-(first - second).abs().sum(dim=-1) / WIDTH)


def _describe(picture: NDArray[np.uint8]) -> Tensor:
    """Features (F,) of one RGB image; each group is averaged, so that its size does not weight it."""
    square = cv2.resize(picture, (SIDE, SIDE), interpolation=_interpolation(picture))
    lab = cv2.cvtColor(square.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) / np.float32(100)
    groups = {
        "strokes": np.concatenate([_strokes(_shrunk(lab, 2**n)) for n in range(SCALES)]),
        "angles": np.concatenate([_angles(_shrunk(lab, 2**n)[..., 0]) for n in range(SCALES)]),
        "moments": _moments(lab),
        "colours": _colours(lab),
    }
    parts = [WEIGHTS[name] * values / len(values) for name, values in groups.items()]
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))


def _interpolation(picture: NDArray[np.uint8]) -> int:
    return cv2.INTER_AREA if min(picture.shape[:2]) > SIDE else cv2.INTER_CUBIC


def _shrunk(lab: Array, factor: int) -> Array:
    side = SIDE // factor
    if factor == 1:
        return lab
    return np.asarray(cv2.resize(lab, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def _basis() -> Array:
    """The orthonormal DCT-II matrix (BLOCK, BLOCK)."""
    k, n = np.mgrid[:BLOCK, :BLOCK]
    basis = np.cos(np.pi * (2 * n + 1) * k / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    basis[0] /= np.sqrt(2)
    return np.asarray(basis, np.float32)


def _strokes(lab: Array) -> Array:
    """Log mean and median over the blocks of every DCT coefficient but the DC, per channel."""
    rows, columns = lab.shape[0] // BLOCK, lab.shape[1] // BLOCK
    blocks = lab.reshape(rows, BLOCK, columns, BLOCK, 3).transpose(0, 2, 4, 1, 3)
    basis = _basis()
    size = np.abs(basis @ blocks @ basis.T).reshape(rows * columns, 3 * BLOCK * BLOCK)
    keep = np.arange(3 * BLOCK * BLOCK) % (BLOCK * BLOCK) != 0
    size = size[:, keep]
    mean, median = size.mean(axis=0), np.median(size, axis=0)
    logs: Array = np.log(np.concatenate([mean, median]) + 0.003)
    return logs


def _angles(light: Array) -> Array:
    """The distribution of gradient energy over directions, and its mean."""
    dx = cv2.Sobel(light, cv2.CV_32F, 1, 0)
    dy = cv2.Sobel(light, cv2.CV_32F, 0, 1)
    size = np.hypot(dx, dy)
    position = (np.arctan2(dy, dx) % np.pi) / np.pi * ANGLES
    bins = np.floor(position + 0.5).astype(int) % ANGLES  # centred on horizontal and vertical
    shares = np.bincount(bins.ravel(), size.ravel(), ANGLES)
    return np.append(shares / max(float(size.sum()), 1e-6) * 4, float(size.mean())).astype(
        np.float32
    )


def _moments(lab: Array) -> Array:
    """Mean, deviation and skewness of each channel, and the correlations of channels."""
    flat = lab.reshape(-1, 3).astype(np.float64)
    mean, spread = flat.mean(axis=0), flat.std(axis=0)
    centred = flat - mean
    third = np.cbrt((centred * centred * centred).mean(axis=0))  # a power is ten times slower
    products = (centred[:, [0, 0, 1]] * centred[:, [1, 2, 2]]).mean(axis=0)
    correlation = np.sign(products) * np.sqrt(np.abs(products))
    return np.concatenate([mean, spread, third, correlation]).astype(np.float32)


def _colours(lab: Array) -> Array:
    """The cumulative histogram of each channel; its L1 distance is the earth mover's distance."""
    parts = []
    for channel, (low, high) in enumerate(((0.0, 1.0), (-0.8, 0.8), (-0.8, 0.8))):
        values = np.clip(lab[..., channel], low, high)
        counts, _ = np.histogram(values, bins=16, range=(low, high))
        parts.append(np.cumsum(counts)[:-1] / values.size)
    return np.concatenate(parts).astype(np.float32)
