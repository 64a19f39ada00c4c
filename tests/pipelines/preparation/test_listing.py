"""A listing is complete: splits, classes and keys; names of files tell splits, and texts come in any writing."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.preparation.discovery.passing_over import Passing
from pipelines.preparation.listing import (
    Asked,
    Listing,
    by_split,
    chosen_splits,
    classes_by_keys,
    classes_of,
    container_and_key,
    container_row_and_key,
    in_order,
    listed,
    read_class_list,
    some,
    split_of,
)
from pipelines.preparation.splits.drawn_splits import Drawing
from pipelines.storage import Folder
from tests.pipelines.preparation.sources_on_disk import (
    cats_and_dogs,
    fill,
    labels,
    listing_of,
    picture,
    refused,
    tar,
    write,
)


def test_an_empty_class_is_refused_and_kept_by_an_option(tmp_path: Path, seeds: Iterator[int]) -> None:
    root = cats_and_dogs(tmp_path / "images", seeds)
    (root / "train" / "bird").mkdir()
    refused("bird has none; --allow-empty keeps it as a class without images", listing_of, root)
    manifest = write(root, tmp_path / "out", drawing=Drawing(allow_empty=True))
    assert [c.name for c in manifest.classes] == ["bird", "cat", "dog"]
    fill(root / "val" / "bird", 1, seeds)
    refused("bird has none", listing_of, root, Drawing(allow_empty=True))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("réd\nblue\n".encode("utf-8-sig"), None),
        ("réd\nblue\n".encode("utf-16"), None),
        ("réd\nblue\n".encode("latin-1"), "source.classes .*names.txt must be text in UTF-8, byte 1 is 0xe9"),
    ],
)
def test_lists_of_classes_as_windows_writes_them(tmp_path: Path, data: bytes, sentence: str | None) -> None:
    for split in ("train", "val"):
        members = {f"{split}{i}.jpg": picture(i) for i in range(2)}
        tar(tmp_path / f"{split}-0.tar", members | {f"{split}{i}.cls": str(i).encode() for i in range(2)})
    (tmp_path / "names.txt").write_bytes(data)
    if sentence is None:
        assert list(labels(listing_of(tmp_path, classes=str(tmp_path / "names.txt"))).values()) == ["réd", "blue"]
    else:
        refused(sentence, listing_of, tmp_path, classes=str(tmp_path / "names.txt"))


def made(splits: dict[Any, list[tuple[str, int, str, int, int]]], classes: int = 2) -> Listing:
    names = [str(i) for i in range(classes)]
    return Listing("folders", Folder("x"), classes_of(names), {split: listed(rows) for split, rows in splits.items()})


@pytest.mark.parametrize(
    ("train", "val", "sentence"),
    [
        ([], [("a", 0, "p", 0, 1)], "source.path x has no images in split train"),
        ([("a", 0, "p", 0, 1), ("b", 2, "p", 1, 1)], [], "label of b must be 0 to 1, one of 2 classes, got 2"),
        ([("a", -1, "p", 0, 1)], [], "label of a must be 0 to 1, one of 2 classes, got -1"),
        ([("a", 0, "p", 0, 1), ("a", 1, "p", 1, 1)], [], "source.path x lists a key twice in split train"),
        ([("a", 0, "p", 0, 1)], [("b", 1, "p", 1, 1)], "every class must have images in split train, 1 has none"),
    ],
)
def test_what_is_not_complete_is_one_sentence(train: list, val: list, sentence: str) -> None:
    listing = made({"train": train, "val": val} if val else {"train": train})
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        listing.checked()


def test_keys_become_longer_until_each_occurs_once() -> None:
    def keys(splits: dict[Any, list[tuple[str, str, int]]]) -> list[str]:
        rows = {split: [(key, 0, path, offset, 1) for key, path, offset in mine] for split, mine in splits.items()}
        found = made(rows).with_distinct_keys(container_and_key, container_row_and_key)
        return [key for table in found.splits.values() for key in table["key"].to_pylist()]

    assert keys({"train": [("1.jpg", "a.tar", 7)], "val": [("2.jpg", "b.tar", 7)]}) == ["1.jpg", "2.jpg"]
    assert keys({"train": [("1.jpg", "d/a.tar", 7)], "val": [("1.jpg", "b.tar", 7)]}) == ["d/a/1.jpg", "b/1.jpg"]
    twice = {"train": [("1.jpg", "a.tar", 7), ("1.jpg", "a.tar", 512)], "val": [("2.jpg", "b.tar", 7)]}
    assert keys(twice) == ["a/000007/1.jpg", "a/000512/1.jpg", "b/000007/2.jpg"]


def test_parts_are_put_in_order_of_path_and_place() -> None:
    parts = [listed([("x", 0, "b", 5, 1), ("y", 0, "b", 2, 1)]), listed([("z", 1, "a", 9, 1)])]
    assert in_order(parts)["key"].to_pylist() == ["z", "y", "x"]
    assert in_order([]).schema == listed([]).schema


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("TRAINING/cat.tar", "train"),
        ("set-valid_0.tar", "val"),
        ("test/validation-0.tar", "test"),
        ("val/train-0.tar", "val"),
        ("trainer-0.tar", None),
        ("contest.tar", None),
        ("0000.tar", None),
    ],
)
def test_the_first_part_of_a_path_that_names_a_split_tells_it(path: str, split: str | None) -> None:
    assert split_of(path) == split


def test_test_files_count_as_val_where_there_is_no_other() -> None:
    assert by_split(["train-0", "test-0"]) == {"train": ["train-0"], "val": ["test-0"]}
    assert by_split(["train-0", "test-0", "val-0"]) == {"train": ["train-0"], "val": ["val-0"], "test": ["test-0"]}
    passing = Passing()
    files = ["train-0", "val-0", "test-0"]
    assert chosen_splits(files, Asked(), passing) == {"train": ["train-0"], "val": ["val-0"]}
    assert [(p.count, p.names) for p in passing.told()] == [(1, ("test-0",))]
    assert list(chosen_splits(files, Asked(keep_test=True), Passing())) == ["train", "val", "test"]
    assert chosen_splits(["0000", "0001"], Asked(), Passing()) == {"train": ["0000", "0001"]}


def test_classes_of_numbers_are_called_by_wnids_names_or_numbers() -> None:
    def called(keys: list[str], labels: list[int], names: list[str] | None = None) -> list[tuple[str, str]]:
        rows = listed((key, label, "p", i, 1) for i, (key, label) in enumerate(zip(keys, labels, strict=True)))
        return [(c.wnid, c.name) for c in classes_by_keys(rows, names)]

    tench, shark = "n01440764", "n01484850"
    assert called([f"{shark}_1", f"{tench}_2"], [0, 1]) == [(shark, "great white shark"), (tench, "tench")]
    assert called([f"{tench}_1", f"{shark}_2"], [0, 0]) == [("0", "0")], "two ids of one label tell nothing"
    assert called([f"{tench}_1", "x"], [0, 1]) == [("0", "0"), ("1", "1")]
    assert called(["x", "y"], [0, 1], ["red", "blue"]) == [("red", "red"), ("blue", "blue")]
    assert called(["x"], [2]) == [("0", "0"), ("1", "1"), ("2", "2")]


def test_a_class_list_has_ids_or_names_or_both() -> None:
    assert read_class_list("n01440764 tench, Tinca tinca\n\n  n01484850\nblue whale\n") == (
        ["n01440764", "n01484850", "blue whale"],
        ["tench, Tinca tinca", "n01484850", "blue whale"],
    )


def test_a_sentence_names_a_few() -> None:
    assert (some([]), some(["a"]), some(list("abc"))) == ("", "a", "a, b, c")
    assert (some(list("abcd")), some(list("abcd"), 1)) == ("a, b, c and 1 more", "a and 3 more")
