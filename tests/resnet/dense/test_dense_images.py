import io

import numpy as np
import pytest
from PIL import Image

from resnet.dense.dense_images import (
    Example,
    evaluation_example,
    mirrored_example,
    random_crop,
    shorter_side_to,
    training_example,
    turned_example,
)
from resnet.dense.dense_recipe import DetectionRecipe, SegmentationRecipe
from resnet.dense.targets import IGNORED, Boxes, encoded_mask


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)


def where_marked(example):
    """Corners of the white part of an image."""
    ys, xs = np.nonzero((example.image == 255).all(2))
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_boxes_stay_around_their_object():
    image = np.zeros((40, 60, 3), np.uint8)
    image[5:20, 30:52] = 255
    target = Boxes.of([[30, 5, 52, 20]], [1]).encoded()
    recipe = DetectionRecipe(turns=True)
    seen = set()
    for seed in range(60):
        found = training_example(png(image), target, recipe, np.random.default_rng(seed))
        assert found.target.boxes[0].tolist() == where_marked(found)
        seen.add((found.image.shape[0], tuple(where_marked(found))))
    assert len(seen) == 8  # four turns, mirrored or not


def test_masks_stay_over_their_object():
    image = np.zeros((40, 60, 3), np.uint8)
    image[8:32, 12:44] = 255
    mask = (image[..., 0] == 255).astype(np.uint8)
    recipe = SegmentationRecipe(size=40, crop=48, scales=(0.9, 1.4), turns=True)
    for seed in range(8):
        found = training_example(png(image), encoded_mask(mask), recipe, np.random.default_rng(seed))
        assert found.image.shape == (48, 48, 3)
        assert found.target.shape == (48, 48)
        counts = found.target != IGNORED
        agree = (found.image[..., 0] > 127) == (found.target == 1)
        assert agree[counts].mean() > 0.95  # but for the edges, which resizing smooths
        assert (found.image[~counts] == 0).all()


def test_a_crop_of_a_smaller_image_is_filled_up(pixels):
    recipe = SegmentationRecipe(size=40, crop=64, scales=(1.0, 1.0))
    found = random_crop(Example(pixels, np.ones((40, 60), np.uint8)), recipe, np.random.default_rng(0))
    assert (found.target[:40, :60] == 1).all()
    assert (found.target[40:] == IGNORED).all()
    assert (found.target[:, 60:] == IGNORED).all()
    assert np.array_equal(found.image[:40, :60], pixels)


def test_the_same_seed_gives_the_same_example(pixels):
    recipe = SegmentationRecipe(size=40, crop=32)
    mask = encoded_mask(np.zeros((40, 60), np.uint8))
    first, second = (training_example(png(pixels), mask, recipe, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first.image, second.image)


def test_evaluation_keeps_the_target_in_the_image_s_own_pixels(pixels):
    boxes = Boxes.of([[1, 2, 3, 4]], [0], [True])
    found = evaluation_example(png(pixels), boxes.encoded(), DetectionRecipe())
    assert np.array_equal(found.image, pixels)
    assert found.target.ignored.tolist() == [True]
    mask = np.zeros((40, 60), np.uint8)
    found = evaluation_example(png(pixels), encoded_mask(mask), SegmentationRecipe(size=80))
    assert found.image.shape == (80, 120, 3)
    assert found.target.shape == (40, 60)


def test_shorter_side(pixels):
    assert shorter_side_to(pixels, 20).shape == (20, 30, 3)
    assert shorter_side_to(pixels.transpose(1, 0, 2), 20).shape == (30, 20, 3)
    assert np.array_equal(shorter_side_to(pixels, 40), pixels)


def test_two_mirrors_and_four_turns_are_none(pixels):
    example = Example(pixels, np.arange(2400, dtype=np.int64).reshape(40, 60).astype(np.uint8))
    for found in (
        mirrored_example(mirrored_example(example)),
        turned_example(turned_example(turned_example(turned_example(example, 1), 1), 1), 1),
    ):
        assert np.array_equal(found.image, pixels)
        assert np.array_equal(found.target, example.target)
