"""Crops for evaluation: resized and cropped as Pillow and torchvision do, bit for bit. (H, W, 3) uint8, RGB."""

from __future__ import annotations

from typing import Literal

import numpy as np

from resnet.images import jpeg_region
from resnet.images.checks.image_limits import TooLarge
from resnet.images.decode import MAX_PIXELS, decode
from resnet.images.grey_range import GreyRange


def scaled_size(height: int, width: int, shorter_side: int) -> tuple[int, int]:
    """(height, width) with the shorter side as given and the longer in proportion, rounded down as torchvision does."""
    longer = int(shorter_side * max(height, width) / min(height, width))
    return (shorter_side, longer) if height <= width else (longer, shorter_side)


def center_crop(
    data: bytes,
    size: int,
    shorter_side: int,
    grey_range: GreyRange | None = None,
    interpolation: Literal["bilinear", "bicubic"] = "bilinear",
) -> np.ndarray:
    """The middle size x size of the upright image with its shorter side as given. (size, size, 3).

    Equal to torchvision's Resize(shorter_side, interpolation) and CenterCrop(size) of a Pillow image, bit for bit.
    grey_range: of grey images of more than 8 bits, as in decode.
    """
    check_crop(size, shorter_side)
    image, height, width = _decoded(data, shorter_side, grey_range)
    top, left = (round((length - size) / 2) for length in (height, width))
    if (height, width) == image.shape[:2]:
        return np.ascontiguousarray(image[top : top + size, left : left + size])
    if interpolation == "bicubic":
        return np.ascontiguousarray(resized(image, height, width, "bicubic")[top : top + size, left : left + size])
    return jpeg_region.best().resize_window(image, height, width, top, left, size, size)


def resized(
    image: np.ndarray, height: int, width: int, interpolation: Literal["bilinear", "bicubic"] = "bilinear"
) -> np.ndarray:
    """The whole image (H, W, 3) at another size, by Pillow."""
    from PIL import Image

    by = Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize((width, height), by))


def _decoded(data: bytes, shorter_side: int, grey_range: GreyRange | None) -> tuple[np.ndarray, int, int]:
    """The upright image, and the (height, width) that it has with its shorter side as given."""
    image = decode(data, grey_range)
    height, width = scaled_size(image.shape[0], image.shape[1], shorter_side)
    if height * width > MAX_PIXELS:  # a hair, one pixel wide, would grow to gigabytes
        raise TooLarge(f"a resized image must have at most {MAX_PIXELS} pixels, got {width} x {height}: it is narrow")
    return image, height, width


def check_crop(size: int, shorter_side: int) -> None:
    """Raises ValueError where a crop of that size does not fit into an image of that shorter side."""
    if not 1 <= size <= shorter_side:
        raise ValueError(f"shorter_side must be at least size, and size at least 1, got {shorter_side} and {size}")
