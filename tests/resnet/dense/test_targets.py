import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnet.dense.targets import Boxes, decoded_mask, encoded_mask, from_run_lengths, run_lengths


def a_few():
    return Boxes.of([[1, 2, 5, 9], [0, 0, 3, 4]], [2, 0], [False, True])


def test_boxes_survive_their_bytes():
    found = Boxes.decoded(a_few().encoded())
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(found, a_few(), strict=True))
    assert Boxes.decoded(Boxes.of([], []).encoded()).boxes.shape == (0, 4)


def test_kept_leaves_out_the_ignored():
    assert a_few().kept().labels.tolist() == [2]


def painted(boxes, height, width):
    """An image with each box filled by its number."""
    image = np.zeros((height, width), np.uint8)
    for number, (left, top, right, bottom) in enumerate(boxes.boxes.astype(int), start=1):
        image[top:bottom, left:right] = number
    return image


@pytest.mark.parametrize("quarters", [0, 1, 2, 3, 5])
def test_boxes_turn_and_mirror_as_their_image_does(quarters):
    boxes = Boxes.of([[1, 2, 5, 9], [6, 0, 8, 4]], [0, 1])
    image = painted(boxes, 10, 8)
    assert np.array_equal(painted(boxes.mirrored(8), 10, 8), image[:, ::-1])
    turned = np.rot90(image, quarters)
    assert np.array_equal(painted(boxes.turned(10, 8, quarters), *turned.shape), turned)


def test_masks_survive_their_bytes():
    mask = np.random.default_rng(0).integers(0, 256, (5, 7)).astype(np.uint8)
    assert np.array_equal(decoded_mask(encoded_mask(mask)), mask)


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def test_a_mask_of_a_palette_has_its_indices():
    indices = np.array([[0, 1], [2, 255]], np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 759)
    assert np.array_equal(decoded_mask(png(image)), indices)


def test_what_is_no_mask_is_one_sentence():
    with pytest.raises(ValueError, match="a mask must have one value a pixel, got an image of mode RGB"):
        decoded_mask(png(Image.new("RGB", (2, 2))))
    with pytest.raises(ValueError, match="a mask must be an image that can be decoded"):
        decoded_mask(b"no image")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11 with numpy 2
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_run_lengths_are_pycocotools(share):
    from pycocotools import mask as theirs

    mask = np.random.default_rng(1).random((6, 9)) < share
    counts = run_lengths(mask)
    assert sum(counts) == mask.size
    assert np.array_equal(from_run_lengths(counts, 6, 9), mask)
    plain: Any = {"counts": counts, "size": [6, 9]}
    packed: Any = theirs.frPyObjects(plain, 6, 9)
    assert np.array_equal(theirs.decode(packed).astype(bool), mask)
