"""Pictures cut to a size, scaled and augmented."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from stylear.train.pictures import augment, choose_bucket, fit_picture, picture_to_pixels


def test_copy_zero_is_the_picture_and_others_are_moved_by_their_key() -> None:
    pixels = np.arange(3 * 32 * 32, dtype=np.uint32).astype(np.uint8).reshape(32, 32, 3)
    assert np.array_equal(augment(pixels, "k", 0), pixels)
    assert np.array_equal(augment(pixels, "k", 1), augment(pixels, "k", 1))
    assert not np.array_equal(augment(pixels, "k", 1), augment(pixels, "j", 1))
    assert augment(pixels, "k", 3).shape == pixels.shape


def test_a_picture_is_cut_at_both_ends_and_not_squeezed() -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    assert (fit_picture(Image.fromarray(pixels), (10, 10)) == 255).all()


def test_pixels_are_between_minus_one_and_one() -> None:
    picture = Image.fromarray(np.array([[[0, 0, 0], [255, 255, 255]]] * 2, np.uint8))
    pixels = picture_to_pixels(picture, 2)
    assert pixels.shape == (3, 2, 2)
    assert torch.equal(pixels[0], torch.tensor([[-1.0, 1.0], [-1.0, 1.0]]))


def test_the_nearest_ratio_counts_wide_and_high_alike() -> None:
    buckets = [(32, 32), (16, 32), (32, 16)]
    assert choose_bucket(100, 100, buckets) == (32, 32)
    assert choose_bucket(150, 100, buckets) == (16, 32)
    assert choose_bucket(100, 150, buckets) == (32, 16)
    assert choose_bucket(140, 100, buckets) == (32, 32)
