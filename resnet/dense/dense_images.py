"""Encoded images and targets -> what a detector or a segmenter is trained and judged on. Pure functions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from resnet.dense.dense_recipe import DenseRecipe, DetectionRecipe, SegmentationRecipe
from resnet.dense.targets import IGNORED, Boxes, decoded_mask
from resnet.images.decode import decode
from resnet.images.jpeg_header import Data


class Example(NamedTuple):
    """image: (H, W, 3) uint8; target: boxes in its pixels, or a mask (H, W) uint8."""

    image: np.ndarray
    target: Any


def training_example(data: Data, target: bytes, recipe: DenseRecipe, rng: np.random.Generator) -> Example:
    """An image as it is trained on. A detector resizes images itself, a segmenter has crops of equal size."""
    image = decode(data)
    if isinstance(recipe, DetectionRecipe):
        found = Example(image, Boxes.decoded(target).kept())
    else:
        assert isinstance(recipe, SegmentationRecipe)
        found = random_crop(Example(image, decoded_mask(target)), recipe, rng)
    if recipe.flip and rng.random() < 0.5:
        found = mirrored_example(found)
    if recipe.turns:
        found = turned_example(found, int(rng.integers(4)))
    return found


def evaluation_example(data: Data, target: bytes, recipe: DenseRecipe) -> Example:
    """An image as it is judged: a detector's as it is, a segmenter's resized; the target in the image's own pixels."""
    image = decode(data)
    if isinstance(recipe, DetectionRecipe):
        return Example(image, Boxes.decoded(target))
    return Example(shorter_side_to(image, recipe.size), decoded_mask(target))


def shorter_side_to(image: np.ndarray, side: int) -> np.ndarray:
    """An image (H, W, 3) uint8 resized to a shorter side, bilinear and antialiased."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    return resized_to(image, max(side, round(height * scale)), max(side, round(width * scale)))


def resized_to(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image (H, W, 3), bilinear and antialiased, or a mask (H, W), by its nearest pixels."""
    if image.shape[:2] == (height, width):
        return image
    how = Image.Resampling.NEAREST if image.ndim == 2 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize((width, height), how))


def random_crop(example: Example, recipe: SegmentationRecipe, rng: np.random.Generator) -> Example:
    """Resized by a random factor, and a square cut out; what lies outside the image is black and ignored."""
    image, mask = example
    assert isinstance(mask, np.ndarray)
    scale, side = recipe.size * rng.uniform(*recipe.scales) / min(image.shape[:2]), recipe.cut
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    image, mask = resized_to(image, height, width), resized_to(mask, height, width)
    below, right = max(0, side - height), max(0, side - width)
    image = np.pad(image, ((0, below), (0, right), (0, 0)))
    mask = np.pad(mask, ((0, below), (0, right)), constant_values=IGNORED)
    top, left = (int(rng.integers(length - side + 1)) for length in mask.shape)
    return Example(image[top : top + side, left : left + side], mask[top : top + side, left : left + side])


def mirrored_example(example: Example) -> Example:
    """Left to right."""
    image, target = example
    flipped = target.mirrored(image.shape[1]) if isinstance(target, Boxes) else target[:, ::-1]
    return Example(image[:, ::-1], flipped)


def turned_example(example: Example, quarters: int) -> Example:
    """By quarter turns, counter-clockwise."""
    image, target = example
    place = image.shape[:2]
    turned_target = (
        target.turned(place[0], place[1], quarters) if isinstance(target, Boxes) else np.rot90(target, quarters)
    )
    return Example(np.rot90(image, quarters), turned_target)
