"""Grey images of more than 8 bits: the range of levels, and where it is applied."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from resnet.images.crops import evaluation_crops
from resnet.images.decode import decode, grey_levels
from resnet.images.grey_range import GreyRange, measure

Encode = Callable[..., bytes]


def test_the_whole_range_loses_the_lower_eight_bits_and_a_twelve_bit_one_the_lower_four():
    levels = np.arange(2**16, dtype=np.uint16)
    assert np.array_equal(GreyRange().apply(levels), levels >> 8)
    assert np.array_equal(GreyRange(0, 4095).apply(levels[:4096]), levels[:4096] >> 4)
    assert (GreyRange(0, 4095).apply(levels[4096:]) == 255).all()


def test_a_window_clips_and_spreads():
    levels = np.array([0, 999, 1000, 1500, 2000, 2001, 65535], np.uint16)
    assert GreyRange(1000, 2000).apply(levels).tolist() == [0, 0, 0, 127, 255, 255, 255]
    assert GreyRange(10, 13).apply(np.arange(9, 15)).tolist() == [0, 0, 85, 170, 255, 255]
    spread = GreyRange(300, 300 + 255).apply(np.arange(300, 556))
    assert spread.tolist() == list(range(256))


@pytest.mark.parametrize(("low", "high"), [(-1, 5), (5, 5), (6, 5), (0, 65536)])
def test_a_range_that_is_none_is_one_sentence(low: int, high: int):
    with pytest.raises(ValueError, match=f"0 <= low < high <= 65535, got {low}, {high}"):
        GreyRange(low, high)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_decoding_and_the_centre_crop_apply_it(kind: str, encode: Encode):
    levels = np.random.default_rng(0).integers(0, 4096, (40, 40)).astype(np.uint16)
    data = encode(levels, kind)
    found = grey_levels(data)
    assert found is not None
    assert np.array_equal(found, levels)
    assert len(np.unique(decode(data))) == 16
    expected = np.repeat((levels >> 4).astype(np.uint8)[..., None], 3, axis=2)
    assert np.array_equal(decode(data, GreyRange(0, 4095)), expected)
    plain = encode(expected[..., 0], "PNG")
    crop = evaluation_crops.center_crop(data, 16, 20, GreyRange(0, 4095))
    assert np.array_equal(crop, evaluation_crops.center_crop(plain, 16, 20))


def test_eight_bits_and_colour_have_no_range(photograph: Callable[..., np.ndarray], encode: Encode):
    pixels = photograph(1, 20, 30)
    for image, kind in ((pixels, "PNG"), (pixels[..., 0], "PNG"), (pixels, "JPEG"), (pixels[..., 0], "PPM")):
        data = encode(image, kind)
        assert grey_levels(data) is None
        assert np.array_equal(decode(data, GreyRange(3, 77)), decode(data))


def test_a_greymap_declares_its_highest_level():
    levels = np.array([[0, 15, 16, 4000, 4095]], ">u2")
    data = b"P5\n5 1\n4095\n" + levels.tobytes()
    assert decode(data)[0, :, 0].tolist() == [0, 0, 1, 250, 255]
    assert decode(data, GreyRange(0, 65535))[0, :, 0].tolist() == [0, 0, 0, 15, 15]


def test_the_measured_range_is_that_of_the_percentiles():
    rng = np.random.default_rng(0)
    several = [rng.integers(500, 3500, (100, 100)), rng.integers(500, 3500, (50, 100))]
    several[0][0, :10] = 65535  # 10 of 15,000 pixels: saturated
    found = measure(several)
    pixels = np.concatenate([part.ravel() for part in several])
    assert found is not None
    assert abs(found.low - np.percentile(pixels, 0.1)) <= 2
    assert abs(found.high - np.percentile(pixels, 99.9)) <= 2
    assert measure(several, (0, 100)) == GreyRange(500, 65535)
    assert measure([]) is None
    assert measure([np.zeros((3, 3), np.uint16)]) == GreyRange(0, 1)
    assert measure([np.full((3, 3), 65535)]) == GreyRange(65534, 65535)


def test_transparency_and_orientation_beside_sixteen_bits(encode: Encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    levels = np.arange(6, dtype=np.uint16).reshape(2, 3) * 256
    turned = decode(encode(levels, "PNG", exif=exif))
    assert turned[..., 0].tolist() == [[3, 0], [4, 1], [5, 2]]
