import json

import numpy as np
import pytest
from PIL import Image

from pipelines.preparation.prepare import verify, write_shards
from pipelines.preparation.sources import Source
from pipelines.preparation.targets.stored_targets import as_classes
from pipelines.shards.manifest import Encoding
from pipelines.shards.row_groups import open_split
from resnet.dense.targets import decoded_mask
from tests.pipelines.dense.small_sets import drawn, mask_set, voc_set


def written(root, **options):
    return write_shards(Source(path=str(root)), str(root) + "-shards", workers=0, **options)


def test_shards_have_each_image_s_boxes(tmp_path):
    voc_set(tmp_path / "set", train=5, val=2)
    manifest = written(tmp_path / "set", row_group_size=2)
    assert manifest.targets == "boxes"
    _, train = open_split(f"{tmp_path}/set-shards", "train")
    rows = [train.read(g, ("key", "target", "label")) for g in range(len(train.rows))]
    found = {key: json.loads(t) for r in rows for key, t in zip(r["key"], r["target"], strict=True)}
    assert {key: target["boxes"] for key, target in found.items()} == {f"image{i:02d}": [drawn(i)[1]] for i in range(5)}
    assert verify(f"{tmp_path}/set-shards") == []
    assert written(tmp_path / "set", row_group_size=2) == manifest  # a finished folder stays as it is


def test_shards_have_each_image_s_mask(tmp_path):
    mask_set(tmp_path / "set", train=3, val=1)
    assert written(tmp_path / "set").targets == "masks"
    _, train = open_split(f"{tmp_path}/set-shards", "train")
    rows = train.read(0, ("key", "target"))
    for key, target in zip(rows["key"], rows["target"], strict=True):
        (left, top, right, bottom), mask = drawn(int(key))[1], np.zeros((64, 64), np.uint8)
        mask[top:bottom, left:right] = 1
        assert np.array_equal(decoded_mask(target), mask)


def test_a_mask_of_another_size_ends_the_preparation(tmp_path):
    mask_set(tmp_path / "set", train=3, val=1)
    Image.fromarray(np.zeros((64, 60), np.uint8)).save(tmp_path / "set/train/masks/01.png")
    with pytest.raises(ValueError, match="the mask of 01 must have its image's size, 64 x 64, got 60 x 64"):
        written(tmp_path / "set")


def turned(path, orientation):
    """The same file with a note of how its camera was held."""
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = orientation
        image.load()
        image.save(path, exif=exif, quality=95)


def test_boxes_are_checked_against_the_image_and_not_its_annotation(tmp_path):
    """An annotation of the original beside an image that was scaled down since."""
    voc_set(tmp_path / "set", train=5, val=2)
    for i in range(7):
        place = tmp_path / f"set/JPEGImages/image{i:02d}.jpg"
        with Image.open(place) as image:
            smaller = image.resize((30, 64))
        smaller.save(place)
    words = "inside the 30 x 64 pixels that its image has, .* is of another size"
    with pytest.raises(ValueError, match=words) as caught:
        written(tmp_path / "set")
    assert "\n" not in str(caught.value)


def test_masks_and_boxes_are_of_the_upright_image(tmp_path):
    """Which is what training, evaluation and the endpoint decode."""
    folder = tmp_path / "masks"
    for grey, split in enumerate(("train", "val")):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
        Image.fromarray(np.full((20, 40, 3), 90 * grey, np.uint8)).save(folder / split / "images/a.jpg")
        turned(folder / split / "images/a.jpg", 6)
        Image.fromarray(np.eye(40, 20, dtype=np.uint8)).save(folder / split / "masks/a.png")
    assert written(folder).targets == "masks"
    for split in ("train", "val"):
        Image.fromarray(np.eye(20, 40, dtype=np.uint8)).save(folder / split / "masks/a.png")
    with pytest.raises(ValueError, match="the mask of a must have its image's size, 20 x 40, got 40 x 20"):
        write_shards(Source(path=str(folder)), str(tmp_path / "again"), workers=0)


def test_scaling_down_is_refused(tmp_path):
    mask_set(tmp_path / "set", train=3, val=1)
    with pytest.raises(ValueError, match="shorter_side must be left out for images with masks"):
        written(tmp_path / "set", encoding=Encoding(shorter_side=32, quality=90))


def test_values_of_masks():
    assert as_classes(np.array([[0, 255]], np.uint8), 2).tolist() == [[0, 1]]
    assert as_classes(np.array([[0, 1, 255]], np.uint8), 2).tolist() == [[0, 1, 255]]
    assert as_classes(np.array([[0, 255]], np.uint8), 3).tolist() == [[0, 255]]
    with pytest.raises(ValueError, match="values of a mask must be 0 to 2, or 255 for none, got 3"):
        as_classes(np.array([[0, 3, 9]], np.uint8), 3)
