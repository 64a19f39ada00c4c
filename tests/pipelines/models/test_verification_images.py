"""Images to verify an exported model are spread evenly over a folder, over shards, or over the digits."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.models.verification_images import Export, sample_images
from pipelines.preparation.prepare import write_shards
from pipelines.preparation.sources import Source
from resnet.images.checks import image_kinds


def test_images_come_from_a_folder_from_shards_or_are_digits(tmp_path: Path):
    rng = np.random.default_rng(0)
    for split, name in (("train", "a"), ("val", "a"), ("val", "b")):
        (tmp_path / "photos" / split / name).mkdir(parents=True)
        for i in range(3):
            picture = Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8))
            picture.save(tmp_path / "photos" / split / name / f"{i}.png")
    (tmp_path / "photos" / "train" / "b").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "photos" / "train" / "b" / "0.png")
    files = {path.read_bytes(): str(path) for path in (tmp_path / "photos").rglob("*.png")}
    assert len(files) == 10
    assert {*sample_images(str(tmp_path / "photos"), 100)} == {*files}
    assert len(sample_images(str(tmp_path / "photos"), 4)) == 4
    write_shards(Source(path=str(tmp_path / "photos")), str(tmp_path / "shards"), workers=0)
    held_out = {data for data, path in files.items() if "/val/" in path}
    assert {*sample_images(str(tmp_path / "shards"), 100)} == held_out
    assert {*sample_images(str(tmp_path / "shards"), 2)} < held_out
    assert len({*sample_images(None, 50)}) == 50


def test_images_of_a_folder_are_spread_from_the_first_to_the_last(tmp_path: Path):
    for i in range(20):
        (tmp_path / f"{i:02d}.png").write_bytes(bytes([i]))
    (tmp_path / "notes.txt").write_bytes(b"no image")
    assert sample_images(str(tmp_path), 3) == [bytes([0]), bytes([10]), bytes([19])]
    assert sample_images(str(tmp_path), 50) == [bytes([i]) for i in range(20)]


def test_every_kind_that_is_decoded_is_found_by_its_suffix_in_any_capitals(tmp_path: Path):
    for i, suffix in enumerate(sorted(image_kinds.SUFFIXES)):
        (tmp_path / f"{i:02d}.{suffix.upper() if i % 2 else suffix}").write_bytes(bytes([i]))
    assert len(sample_images(str(tmp_path), 1000)) == len(image_kinds.SUFFIXES)


def test_a_folder_without_images_and_one_that_is_there_already_are_told(tmp_path: Path):
    with pytest.raises(ValueError, match=f"images must hold files that end in .*, got none in {tmp_path}"):
        sample_images(str(tmp_path), 4)
    with pytest.raises(ValueError, match="out must not exist yet, got"):
        Export(out=str(tmp_path))
    with pytest.raises(ValueError, match="count must be greater than or equal to 2, got 1"):
        Export(out=str(tmp_path / "new"), count=1)
