"""Labels as sources write them, numbers or names, become ids of classes."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.preparation.discovery.label_names import TEXTS, with_ids
from pipelines.preparation.listing import Listing
from pipelines.storage import Folder
from tests.pipelines.preparation.sources_on_disk import (
    CATS,
    labels,
    listing_of,
    picture,
    refused,
    tar,
)


def test_names_as_labels_beside_numbers_are_one_sentence(tmp_path: Path) -> None:
    """WebDataset with .cls that hold names: int() failed far inside the training."""
    for split in ("train", "val"):
        members = {f"{split}{i}.jpg": picture(i) for i in range(2)}
        tar(tmp_path / f"{split}-0.tar", members | {f"{split}{i}.cls": CATS[i].encode() for i in range(2)})
    assert list(labels(listing_of(tmp_path)).values()) == ["cat", "dog"]
    tar(tmp_path / "train-1.tar", {"x.jpg": picture(5), "x.cls": b"1"})
    refused("labels must be all numbers or all names, x.jpg in train-1.tar has '1'", listing_of, tmp_path)


def of_texts(train: list[str], val: list[str], class_list: str | None = None, **how: Any) -> Listing:
    """A listing of images with these labels as text."""
    tables: dict[Any, pa.Table] = {}
    for split, texts in (("train", train), ("val", val)):
        rows = [{"key": f"{split}{i}", "text": t, "path": "p", "offset": i, "size": 1} for i, t in enumerate(texts)]
        tables[split] = pa.Table.from_pylist(rows, schema=TEXTS)
    return with_ids("webdataset", Folder("x"), tables, class_list, **how)


WNIDS = "n01484850 shark\nn01440764 tench"


@pytest.mark.parametrize(
    ("texts", "class_list", "classes", "ids"),
    [
        (["dog", "cat"], None, ["cat cat", "dog dog"], [1, 0]),
        (["dog", "cat"], "emu\ndog\ncat", ["emu emu", "dog dog", "cat cat"], [1, 2]),
        (["n01440764", "n01484850"], WNIDS, ["n01484850 great white shark", "n01440764 tench"], [1, 0]),
        (["tench", "shark"], WNIDS, ["n01484850 great white shark", "n01440764 tench"], [1, 0]),
        (["1", "0"], "red fox\ngray wolf", ["red fox red fox", "gray wolf gray wolf"], [1, 0]),
        (["1", "0"], None, ["0 0", "1 1"], [1, 0]),
    ],
)
def test_labels_become_ids_in_the_order_of_the_list_or_sorted(
    texts: list[str], class_list: str | None, classes: list[str], ids: list[int]
) -> None:
    listing = of_texts(texts, texts[:1], class_list)
    assert [f"{c.wnid} {c.name}" for c in listing.classes] == classes
    assert listing.splits["train"]["label"].to_pylist() == ids
    assert listing.splits["val"]["label"].to_pylist() == ids[:1]


@pytest.mark.parametrize(
    ("train", "val", "class_list", "sentence"),
    [
        (["cat"], ["emu"], None, "every class in val must be in train too, emu is not"),
        (["cat", "emu"], ["cat"], "cat\ndog", "every class in train must be in source.classes, emu is not"),
        (["cat", "3"], ["cat"], None, "labels must be all numbers or all names, train1 in p has '3' and train0 in p"),
    ],
)
def test_labels_that_have_no_id_are_one_sentence(
    train: list[str], val: list[str], class_list: str | None, sentence: str
) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}"):
        of_texts(train, val, class_list)


def test_names_that_look_like_numbers_are_names_where_that_is_said() -> None:
    listing = of_texts(["10", "9"], ["9"], named=True)
    assert [c.name for c in listing.classes] == ["10", "9"]
    assert [c.name for c in of_texts(["1", "0"], ["0"], number_names=["no", "yes"]).classes] == ["no", "yes"]
