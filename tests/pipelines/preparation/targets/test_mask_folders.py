import numpy as np
import pytest
from PIL import Image

from pipelines.preparation.sources import Source, list_source
from pipelines.preparation.splits.drawn_splits import Drawing
from tests.pipelines.dense.small_sets import mask_set


def save(path, values, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8), mode).save(path)


def photo(path):
    save(path, np.zeros((4, 6, 3)))


def listing(root, share=None, **asked):
    return list_source(Source(path=str(root), **asked), Drawing(val_share=share))


def pairs(found, split):
    return [(row["path"], row["target"]) for row in found.splits[split].to_pylist()]


def test_folders_of_each_split(tmp_path):
    mask_set(tmp_path, train=2, val=1)
    found = listing(tmp_path)
    assert (found.kind, found.targets, len(found.classes)) == ("masks", "masks", 2)
    assert pairs(found, "train") == [(f"train/images/0{i}.png", f"train/masks/0{i}.png") for i in range(2)]
    assert pairs(found, "val") == [("val/images/02.png", "val/masks/02.png")]


def test_folders_without_splits(tmp_path):
    for i in range(4):
        photo(tmp_path / "image" / f"{i}.png")
        save(tmp_path / "label" / f"{i}.png", [[0, 1, 2, 255, 0, 0]] * 4)
    found = listing(tmp_path, share=0.25)
    assert {split: table.num_rows for split, table in found.splits.items()} == {"train": 3, "val": 1}
    assert [c.name for c in found.classes] == ["class 0", "class 1", "class 2"]


def test_cityscapes(tmp_path):
    for split, city in (("train", "aachen"), ("val", "ulm"), ("test", "bonn")):
        stem = f"{split}/{city}/{city}_000000_000019"
        photo(tmp_path / "leftImg8bit" / f"{stem}_leftImg8bit.png")
        for kind in ("labelTrainIds", "labelIds", "color", "instanceIds"):
            save(tmp_path / "gtFine" / f"{stem}_gtFine_{kind}.png", [[0, 18, 255, 0, 0, 0]] * 4)
    (tmp_path / "names.txt").write_text("\n".join(f"name{i}" for i in range(19)))
    found = listing(tmp_path, classes=str(tmp_path / "names.txt"))
    assert set(found.splits) == {"train", "val"}
    stem = "val/ulm/ulm_000000_000019"
    assert pairs(found, "val") == [(f"leftImg8bit/{stem}_leftImg8bit.png", f"gtFine/{stem}_gtFine_labelTrainIds.png")]
    assert found.classes[18].name == "name18"


def test_pascal_voc_s_masks(tmp_path):
    """VOC has masks of some of its images, with a palette; its boxes lie beside them."""
    for i in range(4):
        photo(tmp_path / "JPEGImages" / f"{i}.jpg")
    for i in range(3):
        save(tmp_path / "SegmentationClass" / f"{i}.png", [[0, 1, 255, 0, 0, 0]] * 4)
    sets = tmp_path / "ImageSets/Segmentation"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_text("0\n1\n")
    (sets / "val.txt").write_text("2\n")
    found = listing(tmp_path)
    assert pairs(found, "val") == [("JPEGImages/2.jpg", "SegmentationClass/2.png")]
    (sets / "val.txt").write_text("3\n")
    with pytest.raises(ValueError, match="SegmentationClass must hold a mask of 3, which its splits name"):
        listing(tmp_path)


def test_what_does_not_go_together_is_one_sentence(tmp_path):
    mask_set(tmp_path, train=2, val=1)
    (tmp_path / "train/masks/01.png").unlink()
    with pytest.raises(ValueError, match=r"must have a mask in train/masks, 01.png has none"):
        listing(tmp_path)
    (tmp_path / "train/masks/01.png").write_bytes(b"no mask")
    with pytest.raises(ValueError, match=r"train/masks/01.png: a mask must be an image that can be decoded"):
        listing(tmp_path)
