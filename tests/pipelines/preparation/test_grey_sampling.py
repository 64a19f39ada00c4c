"""The range of grey levels is that of the images, measured on a sample that is spread over the list."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.preparation.grey_sampling import measured_range
from tests.pipelines.preparation.sources_on_disk import deep_folders, encoded, listing_of, smooth_folders, write


def test_a_measured_range_is_that_of_the_training_images(tmp_path: Path) -> None:
    levels = deep_folders(tmp_path / "images")
    listing = listing_of(tmp_path / "images")
    pixels = np.stack([found for key, found in levels.items() if "train" in key])
    low, high = measured_range(listing)
    assert abs(low - np.percentile(pixels, 0.1)) <= 1
    assert abs(high - np.percentile(pixels, 99.9)) <= 1
    assert measured_range(listing) == (low, high)
    manifest = write(tmp_path / "images", tmp_path / "out", measure_grey_range=True)
    assert manifest.encoding.grey_range == (low, high)


def test_a_sample_reaches_from_the_first_image_to_the_last(tmp_path: Path) -> None:
    for split, count in (("train", 50), ("val", 1)):
        (tmp_path / split / "a").mkdir(parents=True)
        for i in range(count):
            grey = Image.fromarray(np.full((8, 8), 1000 + 100 * i, np.uint16))
            (tmp_path / split / "a" / f"{i:02d}.png").write_bytes(encoded(grey, "PNG"))
    assert measured_range(listing_of(tmp_path), count=2) == (1000, 5900)


def test_images_that_are_damaged_or_of_8_bits_say_nothing_of_the_range(tmp_path: Path) -> None:
    deep_folders(tmp_path / "images")
    before = measured_range(listing_of(tmp_path / "images"))
    (tmp_path / "images" / "train" / "a" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    (tmp_path / "images" / "train" / "a" / "white.png").write_bytes(encoded(Image.new("L", (8, 8), 255), "PNG"))
    assert measured_range(listing_of(tmp_path / "images")) == before
    smooth_folders(tmp_path / "plain", train=1, val=1)
    with pytest.raises(ValueError, match="of more than 8 bits, none of the 2 looked at is one"):
        measured_range(listing_of(tmp_path / "plain"))
