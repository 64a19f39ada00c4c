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
from torchvision.transforms import InterpolationMode

from resnet.images.checks import image_limits
from resnet.images.crops import evaluation_crops, training_crops
from resnet.images.crops.evaluation_crops import center_crop

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


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(300, 451), (512, 240), (235, 235)])
def test_the_crop_is_torchvisions_with_either_filter(interpolation: Any, height: int, width: int) -> None:
    import io

    rng = np.random.default_rng(height)
    small = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
    data = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(data, "PNG")
    by = InterpolationMode(interpolation)
    theirs = transforms.Compose([transforms.Resize(235, interpolation=by), transforms.CenterCrop(224)])
    expected = np.asarray(theirs(Image.open(data).convert("RGB")))
    np.testing.assert_array_equal(center_crop(data.getvalue(), 224, 235, interpolation=interpolation), expected)
