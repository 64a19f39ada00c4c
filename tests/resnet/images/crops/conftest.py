"""Image files of all sizes."""

from collections.abc import Callable

import numpy as np
import pytest

Photograph = Callable[..., np.ndarray]
Encode = Callable[..., bytes]

SIZES = [(375, 500), (500, 333), (224, 224), (256, 256), (225, 301), (100, 90), (60, 900), (700, 41), (31, 32)]


@pytest.fixture(scope="module")
def files(photograph: Photograph, encode: Encode) -> list[bytes]:
    """JPEGs of all sizes, larger and smaller than the crop, of three samplings and qualities; and a PNG."""
    ways = [("4:4:4", 95), ("4:2:0", 90), ("4:2:2", 75)]
    made = []
    for i, (height, width) in enumerate(SIZES):
        sampling, quality = ways[i % 3]
        made.append(encode(photograph(i, height, width), subsampling=sampling, quality=quality, progressive=i % 4 == 3))
    return [*made, encode(photograph(99, 260, 300), "PNG")]
