"""Crops of small images in batches: padded, cropped back to the same size, mirrored (section 4.2)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from resnet.images.crops.mirror import mirrored


def draw_pad_crop(rng: np.random.Generator, n: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """n draws for `pad_crop_flip`: offsets (n, 2), each from 0 to 2 pad, and flips (n,), true half of the time."""
    return rng.integers(0, 2 * pad, (n, 2), endpoint=True), rng.random(n) < 0.5


def border_color(border: Literal["black", "mean"], mean: np.ndarray) -> np.ndarray:
    """(3,) uint8, the colour of the padding. mean: (3, H, W) or (3, 1, 1) of the training set, in [0, 255]."""
    return np.rint(mean.mean((1, 2))).astype(np.uint8) if border == "mean" else np.zeros(3, np.uint8)


def pad_crop_flip(
    images: np.ndarray, offsets: np.ndarray, flips: np.ndarray, pad: int = 4, border: np.ndarray | None = None
) -> np.ndarray:
    """Pad, crop back to the same size, mirror some (section 4.2). (N, H, W, 3) uint8 -> the same, new.

    offsets: (N, 2) top and left of the crop in the padded image, pad is the middle; flips: (N,) bool; border: (3,)
    uint8, the colour of the padding, black without one.
    """
    n, height, width, channels = images.shape
    if offsets.shape != (n, 2) or flips.shape != (n,):
        raise ValueError(f"offsets and flips must be ({n}, 2) and ({n},), got {offsets.shape} and {flips.shape}")
    if n and (offsets.min() < 0 or offsets.max() > 2 * pad):
        raise ValueError(f"offsets must lie in [0, {2 * pad}], got {offsets.min()} to {offsets.max()}")
    padded = np.zeros((n, height + 2 * pad, width + 2 * pad, channels), np.uint8)
    if border is not None and border.any():
        padded[:] = border
    padded[:, pad : pad + height, pad : pad + width] = images
    crops = np.empty_like(images)
    for crop, whole, (top, left) in zip(crops, padded, offsets.tolist(), strict=True):
        crop[:] = whole[top : top + height, left : left + width]
    crops[flips] = mirrored(crops[flips])
    return crops
