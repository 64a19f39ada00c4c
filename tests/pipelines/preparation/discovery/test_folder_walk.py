"""Each real file below a folder is found once, whatever links, pipes and loops lie there."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.preparation.discovery import folder_walk
from pipelines.preparation.discovery.folder_walk import File, each_file_once, is_above, table_of, walk
from pipelines.preparation.discovery.passing_over import Passing
from pipelines.preparation.sources import read_images
from pipelines.storage import Folder
from tests.pipelines.preparation.sources_on_disk import (
    CATS,
    cats_and_dogs,
    fill,
    keys,
    listing_of,
    passed,
    refused,
)


def test_a_link_to_a_parent_and_one_to_another_class_add_no_image(tmp_path: Path, seeds: Iterator[int]) -> None:
    root = cats_and_dogs(tmp_path / "images", seeds)
    (root / "train" / "cat" / "up").symlink_to("..")
    (root / "train" / "cat" / "dogs").symlink_to("../dog")
    (root / "train" / "everything").symlink_to("../..")
    listing = listing_of(root)
    assert keys(listing) == [f"{name}/train{i}.png" for name in CATS for i in range(4)]
    assert [c.name for c in listing.classes] == ["cat", "dog"]
    kinds = passed(listing)
    assert kinds["links to a folder above them, or to one that is listed already"] == 2
    assert kinds["links to files that are listed already"] == 4


def test_dangling_links_pipes_and_sockets_are_counted_and_nobody_waits(tmp_path: Path, seeds: Iterator[int]) -> None:
    root = cats_and_dogs(tmp_path / "images", seeds)
    for i in range(3):
        (root / "train" / "cat" / f"annex{i}.png").symlink_to(f"../../.git/annex/objects/{i}")
    os.mkfifo(root / "train" / "dog" / "pipe.png")
    (root / "train" / "dog" / "round.png").symlink_to("round.png")
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(root / "train" / "dog")
        listening.bind("socket.png")
    listing = listing_of(root)
    os.chdir("/")
    assert len(keys(listing)) == 8
    assert passed(listing) == {"links that lead nowhere": 4, "pipes, sockets and devices": 2}
    assert listing.passed_over[0].names[0] == "train/cat/annex0.png"


def test_links_to_images_elsewhere_are_images_each_once(tmp_path: Path, seeds: Iterator[int]) -> None:
    fill(tmp_path / "store", 12, seeds)
    for split, numbers in (("train", range(8)), ("val", range(8, 12))):
        for i in numbers:
            folder = tmp_path / "images" / split / CATS[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}.png").symlink_to(tmp_path / "store" / f"{i}.png")
    (tmp_path / "images" / "train" / "cat" / "again.png").symlink_to(tmp_path / "store" / "0.png")
    listing = listing_of(tmp_path / "images")
    assert len(keys(listing)) == 8
    assert passed(listing) == {"links to files that are listed already": 1}
    assert len(list(read_images("folders", listing.source, listing.splits["train"]))) == 8


def test_class_folders_that_are_links_are_classes_and_a_second_name_of_one_is_told(
    tmp_path: Path, seeds: Iterator[int]
) -> None:
    """ImageFolder of links to a shared disk; `ln -s cat kitten` gave the same images two labels."""
    root = cats_and_dogs(tmp_path / "store", seeds)
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
        for name in CATS:
            (tmp_path / "images" / split / name).symlink_to(root / split / name)
    assert len(keys(listing_of(tmp_path / "images"))) == 8
    (tmp_path / "images" / "train" / "kitten").symlink_to("cat")
    refused("kitten has none.*4 links to files that are listed already", listing_of, tmp_path / "images")


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, seeds: Iterator[int]) -> None:
    """A class folder of another user: PermissionError far inside, or fewer images in silence."""
    if os.geteuid() == 0:
        pytest.skip("root reads every folder")
    root = cats_and_dogs(tmp_path, seeds)
    (root / "train" / "cat").chmod(0)
    refused("folder train/cat cannot be read: Permission denied", listing_of, root)


def test_a_bucket_is_walked_as_a_disk_is(tmp_path: Path) -> None:
    """memory:// stands for any file system that is no local one."""
    names = ["b/2.png", "b/deep/er/1.png", "a.png", "b/.hidden", "b/__MACOSX/x.png", "b/notes.txt"]
    remote = Folder(f"memory://{tmp_path.name}")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
        with remote.writing(name) as file:
            file.write(name.encode())
    found, passed_over = [], []
    for folder in (Folder(str(tmp_path)), remote):
        passing = Passing()
        found.append(sorted((file.path, file.size) for file in walk(folder, "", passing)))
        passed_over.append(passing.counts)
    assert found[0] == found[1] == [("a.png", 5), ("b/2.png", 7), ("b/deep/er/1.png", 15)]
    assert passed_over[0] == passed_over[1]


def test_a_folder_is_above_itself_and_what_it_really_holds(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "ab").mkdir()
    (tmp_path / "link").symlink_to("a")
    a, b, link = (str(tmp_path / name) for name in ("a", "a/b", "link"))
    assert is_above(a, a)
    assert is_above(a, b)
    assert is_above(link, b)
    assert is_above("/", a)
    assert not is_above(b, a)
    assert not is_above(a, str(tmp_path / "ab"))


def test_files_of_more_than_a_chunk_are_one_sorted_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_walk, "CHUNK", 3)
    files = [File(f"cat/{i % 10}/{i}.png", i, 0, False) for i in range(10)]
    found = table_of(reversed(files), 4, "cat/")
    assert found["path"].to_pylist() == [file.path for file in files]
    assert found["key"].to_pylist() == [file.path.removeprefix("cat/") for file in files]
    assert found["size"].to_pylist() == list(range(10))
    assert set(found["label"].to_pylist()) == {4}


def test_of_links_to_one_file_the_place_of_the_file_stays_or_else_the_first_path() -> None:
    rows = [File("a/1", 1, 7, True), File("b/1", 1, 7, False), File("b/2", 1, 7, False), File("c/1", 1, 8, True)]
    tables = [table_of([file], 0, "") for file in [*rows, File("d/1", 1, 8, True)]]
    passing = Passing()
    assert each_file_once(tables[::-1], passing)["path"].to_pylist() == ["b/1", "b/2", "c/1"], "two hard links are two"
    (told,) = passing.told()
    assert (told.count, told.names) == (2, ("a/1", "d/1"))
