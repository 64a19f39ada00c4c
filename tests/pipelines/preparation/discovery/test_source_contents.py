"""What lies at a source's path: a folder alone is looked into, a glob chooses, tars and Parquet files are found."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.preparation.discovery.source_contents import contents_of, has_class_folders, has_splits, inside_alone
from tests.pipelines.preparation.sources_on_disk import (
    cats_and_dogs,
    keys,
    listing_of,
)


def test_a_folder_around_the_set_is_looked_into(tmp_path: Path, seeds: Iterator[int]) -> None:
    """Archives unpack to one folder, beside __MACOSX."""
    cats_and_dogs(tmp_path / "dataset-v2" / "images", seeds)
    (tmp_path / "__MACOSX").mkdir()
    assert len(keys(listing_of(tmp_path))) == 8


def test_files_are_found_here_and_in_folders_of_splits_and_a_glob_chooses(tmp_path: Path) -> None:
    for name in ("a-train.tar", "b-val.tar", "train/0.tar", "data/train/1.tar", "data/train/deep/2.tar", "other/3.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    contents = contents_of(str(tmp_path))
    assert contents.names == {"a-train.tar", "b-val.tar", "train", "data", "other"}
    assert sorted(contents.files(".tar")) == ["a-train.tar", "b-val.tar", "data/train/1.tar", "train/0.tar"]
    assert contents_of(f"{tmp_path}/a-*.tar").files(".tar") == ["a-train.tar"]
    assert contents_of(f"{tmp_path}/[ab]-*").files(".tar") == ["a-train.tar", "b-val.tar"]
    assert has_splits(contents, ".tar")
    assert not has_splits(contents_of(f"{tmp_path}/a-*"), ".tar")


def test_class_folders_hold_images_themselves_or_below_a_patients_folder(tmp_path: Path) -> None:
    (tmp_path / "cat" / "patient" / "visit").mkdir(parents=True)
    (tmp_path / "cat" / "notes.txt").touch()
    assert not has_class_folders(contents_of(str(tmp_path)))
    (tmp_path / "cat" / "patient" / "visit" / "1.png").touch()
    assert has_class_folders(contents_of(str(tmp_path)))


def test_a_folder_alone_is_looked_into_three_deep(tmp_path: Path) -> None:
    (tmp_path / "1" / "2" / "3" / "4" / "5").mkdir(parents=True)
    (tmp_path / "1" / "2" / "__MACOSX").mkdir()
    found = [contents.folder.path() for contents in inside_alone(str(tmp_path), contents_of(str(tmp_path)))]
    assert found == [f"{tmp_path}/1", f"{tmp_path}/1/2", f"{tmp_path}/1/2/3"]
    (tmp_path / "other").mkdir()
    assert list(inside_alone(str(tmp_path), contents_of(str(tmp_path)))) == []


def test_cifars_folder_may_lie_in_the_one_named(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert contents_of(str(tmp_path)).folder.path() == f"{tmp_path}/cifar-10-batches-py"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("none", "source.path must exist, .*none does not"),
        ("a.zip", "a.zip is a compressed archive, unpack it first"),
        ("a.txt", "source.path must be a folder that holds train and val, .*a.txt is a file"),
        ("caf\udce9", "source.path must be UTF-8, got .*caf%E9; rename the folder"),
    ],
)
def test_what_is_no_folder_is_one_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    for there in ("a.zip", "a.txt"):
        (tmp_path / there).touch()
    with pytest.raises(ValueError, match=sentence):
        contents_of(os.path.join(tmp_path, name))
