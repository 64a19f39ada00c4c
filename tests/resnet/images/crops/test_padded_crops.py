"""Padded crops of small images against Pillow, one by one."""

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chisquare
from torchvision.transforms import functional as tv

from resnet.images.crops import padded_crops


def as_image(pixels: np.ndarray) -> Any:
    return Image.fromarray(pixels)


def likely_even(counts: np.ndarray) -> bool:
    return cast(Any, chisquare(counts)).pvalue > 1e-3


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 6),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    pad=st.integers(0, 5),
    seed=st.integers(0, 9),
)
def test_padded_crops_equal_pillows_one_by_one(n: int, height: int, width: int, pad: int, seed: int):
    rng = np.random.default_rng(seed)
    batch = rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    before = batch.copy()
    offsets, flips = padded_crops.draw_pad_crop(rng, n, pad)
    crops = padded_crops.pad_crop_flip(batch, offsets, flips, pad)
    assert np.array_equal(batch, before)
    assert crops.shape == batch.shape
    for got, picture, (top, left), mirror in zip(crops, batch, offsets, flips, strict=True):
        whole = tv.pad(as_image(picture), [pad])
        expected = tv.crop(whole, int(top), int(left), height, width)
        assert np.array_equal(got, tv.hflip(expected) if mirror else expected)


def test_the_border_is_zero_before_or_after_the_mean_is_subtracted():
    mean = np.random.default_rng(0).uniform(90, 140, (3, 8, 8))
    assert not padded_crops.border_color("black", mean).any()
    color = padded_crops.border_color("mean", mean)
    assert np.abs(color - mean.mean((1, 2))).max() <= 0.5  # whole grey levels, of a standard deviation of 60
    inside = np.full((1, 8, 8, 3), 255, np.uint8)
    corner = np.zeros((1, 2), int)
    (crop,) = padded_crops.pad_crop_flip(inside, corner, np.array([False]), 4, color)
    whole = np.pad(inside[0].astype(int), ((4, 0), (4, 0), (0, 0)), constant_values=-1)[:8, :8]
    assert np.array_equal(crop, np.where(whole < 0, color, whole))


def test_padded_crops_are_drawn_evenly():
    offsets, flips = padded_crops.draw_pad_crop(np.random.default_rng(0), 20_000, 4)
    pairs = np.bincount(offsets[:, 0] * 9 + offsets[:, 1], minlength=81)
    assert len(pairs) == 81
    assert likely_even(pairs)
    assert abs(int(flips.sum()) - 10_000) < 4 * np.sqrt(5000)


def test_offsets_outside_the_padding_are_refused():
    batch = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"\[0, 8\], got 0 to 9"):
        padded_crops.pad_crop_flip(batch, np.array([[0, 9], [0, 0]]), np.array([True, False]))
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(2,\), got \(1, 2\)"):
        padded_crops.pad_crop_flip(batch, np.zeros((1, 2), int), np.zeros(2, bool))
