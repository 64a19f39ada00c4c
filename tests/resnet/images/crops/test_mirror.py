"""Mirror images."""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from torchvision.transforms import functional as tv

from resnet.images.crops import mirror

Photograph = Callable[..., np.ndarray]


def as_image(pixels: np.ndarray) -> Any:
    return Image.fromarray(pixels)


def test_half_of_the_images_are_mirrored(photograph: Photograph):
    picture, rng = photograph(0, 5, 7), np.random.default_rng(0)
    assert np.array_equal(mirror.mirrored(picture), np.asarray(tv.hflip(as_image(picture))))
    drawn = sum(mirror.draw_flip(rng) for _ in range(1000))
    assert abs(drawn - 500) < 4 * np.sqrt(250)
