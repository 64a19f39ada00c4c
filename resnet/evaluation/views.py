"""The views of an image that a test takes, by the paper's protocols (§3.4, §4.2). No torch here.

    single       the whole image as the square of the network's size: CIFAR-10's 32x32
    1-crop       the centre, 224 of shorter side 256
    10-crop      the four corners and the centre, 224 of shorter side 256, and their mirror images
    multi-scale  the whole image at shorter sides 224, 256, 384, 480 and 640, through the fully convolutional network

Lengths are given for a network that sees 224 pixels, and scale with the recipe's size. The corners of 10-crop are those
of the whole resized image, as the authors cut them before (SPP-net, arXiv 1406.4729, §3.1), not those of its central
square. The paper does not say whether its multi-scale test had mirror images: here they are an option.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from resnet.images.crops.evaluation_crops import center_crop, resized, scaled_size
from resnet.images.decode import decode

if TYPE_CHECKING:
    from resnet.recipes.recipe_settings import Images, Interpolation

ViewProtocol = Literal["single", "1-crop", "10-crop", "multi-scale"]
PROTOCOLS: tuple[ViewProtocol, ...] = get_args(ViewProtocol)
SHORTER_SIDE = 256  # of 1-crop and 10-crop, where the recipe has none of its own
SCALES = (224, 256, 384, 480, 640)
SQUARE = {"single", "1-crop", "10-crop"}  # protocols whose views are size x size
MIRRORED = {"10-crop"}  # protocols in which each view's mirror image counts as well


def default_protocol(images: Images) -> ViewProtocol:
    """The view that training itself is evaluated with."""
    return "single" if images.policy == "pad-crop" else "1-crop"


def views(data: bytes, protocol: ViewProtocol, images: Images) -> list[np.ndarray]:
    """Bytes of an image -> its views without mirror images, each (H, W, 3) uint8."""
    size, side = images.size, images.scaled(images.eval_shorter_side or SHORTER_SIDE)
    if protocol == "single":
        return [center_crop(data, size, size)]
    by = images.eval_interpolation
    if protocol == "1-crop":
        return [center_crop(data, size, side, interpolation=by)]
    image = decode(data)
    if protocol == "10-crop":
        return corners_and_center(_resized(image, side, by), size)
    return [_resized(image, images.scaled(scale), by) for scale in SCALES]


def corners_and_center(image: np.ndarray, size: int) -> list[np.ndarray]:
    """Top left, top right, bottom left, bottom right and centre, (size, size, 3) each, of an (H, W, 3) image."""
    bottom, right = image.shape[0] - size, image.shape[1] - size
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))]
    return [image[top : top + size, left : left + size] for top, left in places]


def _resized(image: np.ndarray, shorter_side: int, interpolation: Interpolation) -> np.ndarray:
    """The whole image, (H, W, 3), with its shorter side as given."""
    height, width = scaled_size(image.shape[0], image.shape[1], shorter_side)
    return image if (height, width) == image.shape[:2] else resized(image, height, width, interpolation)
