"""The crops of evaluation against Pillow's and torchvision's."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from resnet.images.checks import image_limits
from resnet.images.crops import evaluation_crops, training_crops

Photograph = Callable[..., np.ndarray]
Encode = Callable[..., bytes]


def opened(data: bytes) -> Any:  # a Pillow image; torchvision's signatures know tensors only
    return Image.open(io.BytesIO(data)).convert("RGB")


@pytest.mark.parametrize(("size", "shorter_side"), [(224, 256), (224, 224), (32, 32), (223, 256), (64, 73), (1, 7)])
def test_the_centre_crop_is_torchvisions_bit_for_bit(size: int, shorter_side: int, files: list[bytes]):
    reference = transforms.Compose([transforms.Resize(shorter_side), transforms.CenterCrop(size)])
    for data in files:
        assert np.array_equal(
            evaluation_crops.center_crop(data, size, shorter_side), np.asarray(reference(opened(data)))
        )


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 200), width=st.integers(1, 200), shorter=st.integers(1, 120), keep=st.floats(0, 1))
def test_sizes_and_offsets_round_as_torchvision_does(
    height: int, width: int, shorter: int, keep: float, photograph: Photograph, encode: Encode
):
    data, size = encode(photograph(1, height, width), "PNG"), max(1, round(keep * shorter))
    resized = transforms.Resize(shorter)(opened(data))
    assert evaluation_crops.scaled_size(height, width, shorter) == (resized.height, resized.width)
    assert np.array_equal(
        evaluation_crops.center_crop(data, size, shorter), np.asarray(transforms.CenterCrop(size)(resized))
    )


def test_the_centre_crop_is_upright(photograph: Photograph, encode: Encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = photograph(2, 60, 90)
    turned = encode(picture, "PNG", exif=exif)
    upright = encode(np.rot90(picture, -1), "PNG")
    assert np.array_equal(evaluation_crops.center_crop(turned, 32, 40), evaluation_crops.center_crop(upright, 32, 40))


def test_impossible_crops_are_refused(files: list[bytes], encode: Encode):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="got 223 and 224"):
        evaluation_crops.center_crop(files[0], 224, 223)
    with pytest.raises(ValueError, match="got 200 and 224"):
        training_crops.scale_jitter_crop(files[0], rng, 224, (200, 480))
    hair = encode(np.zeros((1, 60_000, 3), np.uint8), "PNG")
    with pytest.raises(image_limits.TooLarge, match="narrow"):
        evaluation_crops.center_crop(hair, 224, 256)
    assert training_crops.scale_jitter_crop(hair, rng, 224).shape == (224, 224, 3)  # takes what it sees
