"""Pieces that the picture styles are made of: colours, grounds, lines, grain, cells.

H W height and width in px, 3 colour channels. Fields are float32 in [0, 1], (H, W) or (H, W, 3).
"""

from __future__ import annotations

import colorsys
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Field = npt.NDArray[Any]
Rng = np.random.Generator
WHITE = np.ones(3, np.float32)


def colour(
    rng: Rng, hue: tuple[float, float], sat: tuple[float, float], val: tuple[float, float]
) -> Field:
    """A random colour (3,) from ranges in HSV."""
    parts = [float(rng.uniform(*part)) for part in (hue, sat, val)]
    return np.array(colorsys.hsv_to_rgb(parts[0] % 1, parts[1], parts[2]), np.float32)


def paper(rng: Rng, sat: float = 0.18) -> Field:
    """A light paper colour."""
    return colour(rng, (0.05, 0.18), (0.02, sat), (0.88, 0.99))


def light(picture: Field) -> Field:
    """Luminance (H, W)."""
    return picture @ np.array([0.299, 0.587, 0.114], np.float32)


def blur(field: Field, sigma: float) -> Field:
    return np.asarray(cv2.GaussianBlur(field, (0, 0), max(sigma, 0.01)), np.float32)


def figure(picture: Field) -> Field:
    """How much of each pixel is drawing and not white ground, (H, W) in [0, 1]."""
    distance = np.abs(1 - picture).max(2)
    return np.clip(blur(distance, 0.6) * 4 - 0.2, 0, 1)


def lines(picture: Field, width: float = 0.8, gain: float = 3.0) -> Field:
    """Strength of outlines, (H, W) in [0, 1]."""
    soft = blur(picture, width * scale(picture))
    dx, dy = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    strength = np.sqrt((dx**2 + dy**2).sum(2)) / scale(picture) ** -1
    return np.clip(strength * gain * 0.35 - 0.12, 0, 1).astype(np.float32)


def scale(picture: Field) -> float:
    """Size of marks relative to 64 px."""
    return picture.shape[0] / 64


def grid(picture: Field, angle: float) -> tuple[Field, Field]:
    """Coordinates (H, W) turned by `angle` radians, in px."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * x + s * y, c * y - s * x


def mix(ground: Field, ink: Field, amount: Field) -> Field:
    """`ink` over `ground`, where `amount` (H, W)."""
    return ground + (ink - ground) * amount[..., None]


def flat(picture: Field, colour: Field) -> Field:
    return np.broadcast_to(colour, picture.shape).astype(np.float32)


def grain(picture: Field, rng: Rng, sigma: float) -> Field:
    """Noise (H, W) of unit deviation, blurred."""
    noise = blur(rng.standard_normal(picture.shape[:2]).astype(np.float32), sigma * scale(picture))
    return (noise / (noise.std() + 1e-6)).astype(np.float32)


def posterise(picture: Field, levels: int) -> Field:
    return np.round(blur(picture, 0.7) * (levels - 1)) / (levels - 1)


def saturate(picture: Field, amount: float) -> Field:
    """The picture with its saturation multiplied by `amount`."""
    grey = light(picture)[..., None]
    return np.clip(grey + (picture - grey) * amount, 0, 1).astype(np.float32)


def cells(picture: Field, size: int) -> tuple[Field, Field, Field]:
    """Mean colour of square cells at full size, and the position within the cell in [-1, 1] (x, y)."""
    h, w = picture.shape[:2]
    small = cv2.resize(
        picture, (max(1, w // size), max(1, h // size)), interpolation=cv2.INTER_AREA
    )
    y, x = np.mgrid[:h, :w].astype(np.float32)
    rows, columns = small.shape[0] / h, small.shape[1] / w
    iy, ix = (
        np.minimum((y * rows).astype(int), small.shape[0] - 1),
        np.minimum((x * columns).astype(int), small.shape[1] - 1),
    )
    u = ((x + 0.5) * columns - ix) * 2 - 1
    v = ((y + 0.5) * rows - iy) * 2 - 1
    return small[iy, ix].astype(np.float32), u.astype(np.float32), v.astype(np.float32)


def voronoi(picture: Field, rng: Rng, count: int) -> tuple[npt.NDArray[np.int64], Field]:
    """Label of the nearest of `count` jittered points, and distance to the border between cells (px)."""
    h, w = picture.shape[:2]
    side = max(2, int(np.sqrt(count)))
    gy, gx = np.mgrid[:side, :side]
    points = np.stack([gy.ravel(), gx.ravel()], 1) + rng.uniform(0.05, 0.95, (side * side, 2))
    points = (points * [h / side, w / side]).astype(np.float32)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    pair, near = cKDTree(points).query(np.stack([y.ravel(), x.ravel()], 1), k=2)
    labels = near[:, 0].reshape(h, w)
    border = (pair[:, 1] - pair[:, 0]).reshape(h, w) / 2
    return labels, border.astype(np.float32)


def fill_cells(picture: Field, labels: npt.NDArray[np.int64]) -> Field:
    """Fill each cell with its mean colour."""
    flat_labels = labels.ravel()
    counts = np.maximum(np.bincount(flat_labels), 1)
    means = [
        np.bincount(flat_labels, picture[..., c].ravel(), len(counts)) / counts for c in range(3)
    ]
    return np.stack(means, 1).astype(np.float32)[labels]


def ramp(values: Field, stops: list[Field]) -> Field:
    """Colours along a ramp of stops; values (H, W) in [0, 1]."""
    positions = np.linspace(0, 1, len(stops))
    return np.stack(
        [np.interp(values, positions, [stop[c] for stop in stops]) for c in range(3)], 2
    ).astype(np.float32)


def tinted_ground(picture: Field, ground: Field) -> Field:
    """The picture on a coloured ground in place of white."""
    return mix(flat(picture, ground), picture, figure(picture))
