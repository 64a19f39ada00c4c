"""Images of tars with labels in .cls, .json, folders' names or the tar's own name."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.preparation.sources import Source, list_source
from tests.pipelines.preparation.sources_on_disk import (
    CATS,
    jpeg,
    keys,
    labels,
    listing_of,
    passed,
    picture,
    read_back,
    refused,
    tar,
    tar_bytes,
)


def write_webdataset(root: Path, key: str = "{:04d}", labels: int = 2) -> dict[str, Any]:
    expected: dict[str, Any] = {"train": {}, "val": {}}
    for split, tars in (("train", 2), ("val", 1)):
        for t in range(tars):
            members = {}
            for i in range(4):
                name, label, data = key.format(i + 10 * t + 100 * (split == "val")), i % labels, jpeg(50 * t + i)
                members |= {f"{name}.cls": str(label).encode(), f"{name}.jpg": data, f"{name}.json": b"{}"}
                expected[split][f"{name}.jpg"] = (label, data)
            (root / f"set-{split}-{t:04d}.tar").write_bytes(tar_bytes(members))
    return expected


def test_webdataset_is_read_inside_its_tars(tmp_path: Path) -> None:
    expected = write_webdataset(tmp_path)
    listing = list_source(Source(path=str(tmp_path)))
    assert (listing.kind, read_back(listing)) == ("webdataset", expected)
    assert [c.name for c in listing.classes] == ["0", "1"]


def test_webdataset_by_glob_and_with_names(tmp_path: Path) -> None:
    expected = write_webdataset(tmp_path)
    (tmp_path / "other-train.tar").write_bytes(b"no tar")
    (tmp_path / "classnames.txt").write_text("red fox\ngray wolf\n")
    listing = list_source(Source(path=f"{tmp_path}/set-*.tar"))
    assert read_back(listing) == expected
    assert [c.name for c in listing.classes] == ["red fox", "gray wolf"]


def test_webdataset_keys_that_repeat_get_their_tar_before_them(tmp_path: Path) -> None:
    sample = {"0.jpg": jpeg(1), "0.cls": b"0"}
    for name in ("train-0", "train-1", "val-0"):
        (tmp_path / f"{name}.tar").write_bytes(tar_bytes(sample))
    found = read_back(list_source(Source(path=str(tmp_path))))
    assert set(found["train"]) == {"train-0/0.jpg", "train-1/0.jpg"}
    assert set(found["val"]) == {"val-0/0.jpg"}


def test_webdataset_classes_come_from_wnids_in_the_keys(tmp_path: Path) -> None:
    for split in ("train", "val"):
        images = {f"n0144076{4 if i else 9}_{split}{i}.jpg": jpeg(i) for i in range(2)}
        labels = {f"{name[:-4]}.cls": str(i).encode() for i, name in enumerate(images)}
        (tmp_path / f"{split}-0.tar").write_bytes(tar_bytes(images | labels))
    classes = list_source(Source(path=str(tmp_path))).classes
    assert [(c.id, c.wnid) for c in classes] == [(0, "n01440769"), (1, "n01440764")]


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"a.jpg": b"x"}, "a.jpg needs a .cls"),
        ({"a.jpg": b"x", "a.cls": b"cat"}, "must be all numbers or all names, .* 'cat'"),
        ({"a.jpg": b"x", "a.png": b"x", "a.cls": b"0"}, "share a key"),
        ({"a.cls": b"0"}, "has a .cls but no image"),
        ({"a.jpg": b"x", "a.cls": b"-1"}, "must be 0 to 0, one of 1 classes, got -1"),
        ({"a.jpg": b"x", "a.cls": b"5"}, "must be 0 to 0, one of 1 classes, got 5"),
    ],
)
def test_webdataset_samples_that_are_not_complete_are_named(tmp_path: Path, members: dict, sentence: str) -> None:
    (tmp_path / "train-0.tar").write_bytes(tar_bytes({"0.jpg": jpeg(1), "0.cls": b"0"}))
    (tmp_path / "val-0.tar").write_bytes(tar_bytes(members))
    with pytest.raises(ValueError, match=sentence):
        list_source(Source(path=str(tmp_path)))


@pytest.mark.parametrize(
    ("image", "label"), [("0001.input.jpg", "0001.cls"), ("22.05.png", "22.05.cls"), ("a.b/1.jpg", "a.b/1.cls")]
)
def test_members_with_two_dots_are_read(tmp_path: Path, image: str, label: str) -> None:
    for split in ("train", "val"):
        members = {image: picture(1), label: b"0", "9.jpg": picture(2), "9.cls": b"1"}
        tar(tmp_path / f"{split}-0.tar", members)
    assert [k.removeprefix("train-0/") for k in sorted(keys(listing_of(tmp_path)))] == sorted([image, "9.jpg"])


def test_of_two_images_of_a_sample_one_is_chosen_by_its_suffix(tmp_path: Path) -> None:
    for split in ("train", "val"):
        names = {f"{split}{i}.{kind}.png": picture(i) for i in range(2) for kind in ("input", "mask")}
        tar(tmp_path / f"{split}-0.tar", names | {f"{split}{i}.cls": str(i).encode() for i in range(2)})
    refused("share a key, one image is allowed; --source.image-column names the suffix", listing_of, tmp_path)
    listing = listing_of(tmp_path, image_column="input.png")
    assert labels(listing) == {"train0.input.png": "0", "train1.input.png": "1"}


@pytest.mark.parametrize("field", ["label", "class_name"])
def test_labels_in_json_are_read(tmp_path: Path, field: str) -> None:
    values = [0, 1] if field == "label" else ["tabby", "beagle"]
    for split in ("train", "val"):
        members = {f"{split}{i}.jpg": picture(i) for i in range(2)}
        members |= {f"{split}{i}.json": json.dumps({"width": 3, field: values[i]}).encode() for i in range(2)}
        tar(tmp_path / f"{split}-0.tar", members)
    assert list(labels(listing_of(tmp_path)).values()) == [str(v) for v in values]
    refused(
        "must have a number or a name in field text, its fields are .*; --source.label-column names another",
        listing_of,
        tmp_path,
        label_column="text",
    )


def test_timms_tars_of_class_folders_and_a_tar_a_class(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        tar(tmp_path / "one" / f"{split}.tar", {f"{c}/{split}{i}.png": picture(i) for c in CATS for i in range(2)})
        for wnid in ("n01440764", "n02102040"):
            tar(tmp_path / "two" / split / f"{wnid}.tar", {f"{wnid}_{split}{i}.JPEG": picture(i) for i in range(2)})
    assert labels(listing_of(tmp_path / "one"))["dog/train1.png"] == "dog"
    two = listing_of(tmp_path / "two")
    assert [(c.wnid, c.name) for c in two.classes] == [("n01440764", "tench"), ("n02102040", "English springer")]
    assert set(labels(two).values()) == {"tench", "English springer"}


def test_a_tar_that_a_mac_packed_has_no_images_of_resource_forks(tmp_path: Path) -> None:
    """tar on macOS adds ._NAME members, which ImageFolder-like readers take for images."""
    for split in ("train", "val"):
        images = {f"cat/{split}.png": picture(1), f"dog/{split}.png": picture(2)}
        tar(tmp_path / f"{split}.tar", images | {f"cat/._{split}.png": b"x", f"__MACOSX/cat/{split}.png": b"x"})
    listing = listing_of(tmp_path)
    assert len(keys(listing)) == 2
    assert passed(listing) == {"hidden files and folders": 2, "system files and folders": 2}


def test_tars_without_labels_do_not_take_the_shards_numbers_for_classes(tmp_path: Path) -> None:
    """timm's reader takes a tar's name for the class; shards 0000, 0001 would become classes."""
    for split in ("train", "val"):
        for n in range(2):
            tar(tmp_path / split / f"{n:04d}.tar", {f"{split}{n}.jpg": picture(n)})
    refused("needs a .cls or .json .* --source.label-column tar takes the name of the tar", listing_of, tmp_path)
