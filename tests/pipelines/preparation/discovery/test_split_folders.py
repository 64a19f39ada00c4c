"""Folders of train, val and test by their names, in any capitals; or classes side by side."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.preparation.discovery.passing_over import Passing
from pipelines.preparation.discovery.split_folders import folders_by_split, split_folders
from pipelines.preparation.listing import Asked
from pipelines.preparation.splits.drawn_splits import Drawing
from pipelines.storage import Folder
from tests.pipelines.preparation.sources_on_disk import (
    cats_and_dogs,
    fill,
    keys,
    labels,
    listing_of,
    picture,
    refused,
    tar,
)


def test_a_class_called_train_is_a_class(tmp_path: Path, seeds: Iterator[int]) -> None:
    """Vehicles: bus, car, train. A split's name in a class's place moved all images to another split."""
    for name in ("bus", "car", "train"):
        fill(tmp_path / "flat" / name, 5, seeds)
    listing = listing_of(tmp_path / "flat", Drawing(val_share=0.2))
    assert [c.name for c in listing.classes] == ["bus", "car", "train"]
    for split in ("train", "val"):
        for name in ("bus", "train"):
            tar(tmp_path / "tars" / split / f"{name}.tar", {f"{split}{name}.png": picture(next(seeds))})
    refused("--source.label-column tar takes the name of the tar", listing_of, tmp_path / "tars")
    listing = listing_of(tmp_path / "tars", label_column="tar")
    assert sorted(labels(listing, "val").values()) == ["bus", "train"]


@pytest.mark.parametrize(("train", "val"), [("Train", "Val"), ("TRAIN", "TEST"), ("Training", "Testing")])
def test_other_capitals_and_words_are_splits(tmp_path: Path, seeds: Iterator[int], train: str, val: str) -> None:
    root = cats_and_dogs(tmp_path, seeds)
    (root / "train").rename(root / "renamed")
    (root / "renamed").rename(root / train)
    (root / "val").rename(root / "renamed")
    (root / "renamed").rename(root / val)
    listing = listing_of(root)
    assert (len(keys(listing)), len(keys(listing, "val"))) == (8, 4)


def test_train_twice_in_other_capitals_is_one_sentence(tmp_path: Path, seeds: Iterator[int]) -> None:
    """A set that was unpacked over an older one on a disk that tells capitals."""
    cats_and_dogs(tmp_path, seeds)
    fill(tmp_path / "Train" / "cat", 1, seeds)
    refused("must hold one folder for split train, it holds Train and train", listing_of, tmp_path)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train", "val", "test", "x"], {"train": "train", "val": "val", "test": "test"}),
        (["Training", "TEST"], {"train": "Training", "val": "TEST"}),
        (["train", "valid", "validation"], {"train": "train", "val": "valid"}),
        (["trainer", "evaluation"], {}),
        (["test"], {"val": "test"}),
    ],
)
def test_names_tell_splits_and_test_counts_as_val_where_there_is_no_other(
    names: list[str], splits: dict[str, str]
) -> None:
    assert folders_by_split(names) == splits


def test_folders_of_splits_are_found_below_another_and_the_rest_is_passed_over(tmp_path: Path) -> None:
    for name in ("train/cat", "val/cat", "test/cat", "__MACOSX", "notes"):
        (tmp_path / "in" / name).mkdir(parents=True)
    source, passing = Folder(str(tmp_path)), Passing()
    assert split_folders(source, "in", Asked(), passing) == {"train": "in/train", "val": "in/val"}
    assert {p.what: p.names for p in passing.told()} == {
        "files and folders beside the classes": ("in/notes/", "in/test/"),
        "system files and folders": ("in/__MACOSX/",),
    }
    assert list(split_folders(source, "in", Asked(keep_test=True), Passing())) == ["train", "val", "test"]


def test_without_train_there_is_a_sentence_or_one_folder_of_classes(tmp_path: Path) -> None:
    (tmp_path / "val" / "cat").mkdir(parents=True)
    with pytest.raises(ValueError, match="must hold train/ and val/ by class, train/ is missing"):
        split_folders(Folder(str(tmp_path)), "", Asked(), Passing())
    (tmp_path / "dog").mkdir()
    assert split_folders(Folder(str(tmp_path)), "", Asked(), Passing()) == {"train": ""}, "a class that is called val"
