"""Class folders are read exactly: the bytes, the label and the key of each image; names in any writing."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet as pq

from pipelines.preparation.sources import Source, list_source
from pipelines.preparation.splits.drawn_splits import Drawing
from tests.pipelines.preparation.sources_on_disk import (
    cats_and_dogs,
    fill,
    jpeg,
    keys,
    labels,
    listing_of,
    picture,
    read_back,
    refused,
    write,
)


def write_folders(root: Path, names: tuple[str, ...] = ("cat", "dog"), val: str = "val") -> dict[str, Any]:
    """train/ with four images a class, val/ with two; returns what must be read: split -> {key: (label, bytes)}."""
    expected: dict[str, Any] = {"train": {}, "val": {}}
    for split, folder, count in (("train", "train", 4), ("val", val, 2)):
        for label, name in enumerate(sorted(names)):
            (root / folder / name).mkdir(parents=True)
            for i in range(count):
                key, data = f"{name}/{split}_{i}.JPEG", jpeg(hash((split, label, i)) % 2**32)
                (root / folder / key.replace("/", os.sep)).write_bytes(data)
                expected[split][key] = (label, data)
    return expected


@pytest.mark.parametrize("val", ["val", "validation", "test"])
def test_class_folders_are_read_exactly(tmp_path: Path, val: str) -> None:
    expected = write_folders(tmp_path, val=val)
    (tmp_path / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "downloaded.tar").write_bytes(b"x")
    listing = list_source(Source(path=str(tmp_path)))
    assert listing.kind == "folders"
    assert read_back(listing) == expected
    assert [(c.id, c.wnid, c.name) for c in listing.classes] == [(0, "cat", "cat"), (1, "dog", "dog")]


def test_a_key_that_occurs_in_both_splits_gets_its_split_before_it(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "cat" / "inside").mkdir(parents=True)
        (tmp_path / split / "cat" / "inside" / "1.jpg").write_bytes(jpeg(1))
    found = read_back(list_source(Source(path=str(tmp_path))))
    assert set(found["train"]) | set(found["val"]) == {"train/cat/inside/1.jpg", "val/cat/inside/1.jpg"}


def test_a_subset_of_imagenet_gets_ids_by_sorted_wnid_and_the_names_of_its_classes(tmp_path: Path) -> None:
    write_folders(tmp_path, ("n03888257", "n01440764", "n02102040"))
    classes = list_source(Source(path=str(tmp_path))).classes
    assert [(c.id, c.wnid, c.name) for c in classes] == [
        (0, "n01440764", "tench"),
        (1, "n02102040", "English springer"),
        (2, "n03888257", "parachute"),
    ]


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="only Linux takes such names")
def test_names_that_are_not_utf8_are_prepared_and_shown(tmp_path: Path, seeds: Iterator[int]) -> None:
    root = cats_and_dogs(tmp_path / "images", seeds)
    odd = os.fsencode(root / "train" / "cat") + b"/caf\xe9.png"
    Path(os.fsdecode(odd)).write_bytes(picture(next(seeds)))
    for split in ("train", "val"):
        folder = Path(os.fsdecode(os.fsencode(root / split) + b"/\xe9l\xe9phant"))
        fill(folder, 2, seeds, split + "{}.png")
    manifest = write(root, tmp_path / "out")
    assert manifest.examples("train") == 11
    assert [c.name for c in manifest.classes] == ["cat", "dog", "%E9l%E9phant"]
    found = {u.what: u.count for u in manifest.unusual}
    assert found == {"name that is not UTF-8, its bytes kept as %XX": 5}
    stored = pq.read_table(next((tmp_path / "out").glob("train-*")), columns=["key"])["key"].to_pylist()
    assert "cat/caf%E9.png" in stored
    (root / "train" / "cat" / "caf%E9.png").write_bytes(picture(next(seeds)))
    assert len(set(keys(listing_of(root)))) == 12, "a name that looks like another one shown"


def test_accents_in_two_forms_of_unicode_are_one_class(tmp_path: Path, seeds: Iterator[int]) -> None:
    """A zip of a Mac has decomposed names (NFD): ImageFolder finds other classes in val than in train."""
    fill(tmp_path / "train" / "\u00e9clair", 2, seeds)
    fill(tmp_path / "train" / "tarte", 2, seeds)
    fill(tmp_path / "val" / "e\u0301clair", 1, seeds)
    listing = listing_of(tmp_path)
    assert list(labels(listing, "val").values()) == ["\u00e9clair"]
    fill(tmp_path / "train" / "e\u0301clair", 2, seeds)
    refused("names of classes must differ, .* is there twice, in two forms of Unicode", listing_of, tmp_path)


def test_a_class_in_other_capitals_in_val_is_named_with_its_like(tmp_path: Path, seeds: Iterator[int]) -> None:
    """Cat in val, cat in train: ImageFolder gives the two other ids in silence."""
    root = cats_and_dogs(tmp_path, seeds)
    (root / "val" / "cat").rename(root / "val" / "Cat")
    refused(r"every class in val/ must be in train/ too, Cat is not \(cat is", listing_of, root)


@pytest.mark.parametrize(
    "parts",
    [("JPEGImages", "Annotations"), ("train/images", "train/labels", "val/images", "val/labels"), ("image", "label")],
)
def test_sets_for_detection_and_segmentation_are_no_two_classes(
    tmp_path: Path, seeds: Iterator[int], parts: tuple[str, ...]
) -> None:
    """YOLO's and VOC's folders: ImageFolder finds the classes images and labels, and tells photos from masks.

    They are read as what they seem, whose targets these photos are not.
    """
    for part in parts:
        fill(tmp_path / part, 4, seeds)
    refused(
        "must hold images with boxes.*taken for voc|one value a pixel, got an image of mode RGB.*taken for masks",
        listing_of,
        tmp_path,
        Drawing(val_share=0.2),
    )
    drawing = Drawing(val_share=0.25) if len(parts) == 2 else None
    assert len(listing_of(tmp_path, drawing, kind="folders").classes) == 2
