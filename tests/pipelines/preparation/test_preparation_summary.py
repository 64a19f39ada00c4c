"""The last lines of a preparation: a sentence for each kind of thing, with its count and the first names."""

from typing import Any

import pytest

from pipelines.preparation.preparation_summary import lines
from pipelines.shards.manifest import (
    Duplicates,
    Encoding,
    Manifest,
    Origin,
    PassedOver,
    Rejected,
    Shard,
    Unusual,
)
from resnet.image_class import ImageClass


def manifest(**fields: Any) -> Manifest:
    """1,200 training and 300 validation images of two classes."""
    shards = (
        Shard(file="train", split="train", examples=1200, row_groups=(1200,), bytes=1, sha256="a"),
        Shard(file="val", split="val", examples=300, row_groups=(300,), bytes=1, sha256="b"),
    )
    classes = tuple(ImageClass(id=i, wnid=name, name=name) for i, name in enumerate(("cat", "dog")))
    origin = Origin(kind="folders", path="/images", images=1500, fingerprint="f")
    whole: dict[str, Any] = {"classes": classes, "shards": shards, "row_group_size": 1200, "shuffle_seed": 0}
    return Manifest(**whole | {"encoding": Encoding(), "source": origin} | fields)


def test_of_plain_images_nothing_is_said() -> None:
    assert list(lines(manifest())) == []


TWINS = Duplicates(within={"train": 1234}, in_train={"val": 7}, other_class=2, pairs=(("b.png", "a.png"),))
KEYS = tuple(f"{i}.png" for i in range(5))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"passed_over": (PassedOver(what="files named .csv", count=2000, names=("a.csv", "b.csv")),)},
            ["passed over: 2,000 files named .csv: a.csv, b.csv and 1,998 more"],
        ),
        (
            {"rejected": tuple(Rejected(split="val", key=key, reason="torn") for key in KEYS)},
            ["rejected: 5 images that cannot be decoded: 0.png (torn), 1.png (torn), 2.png (torn) and 2 more"],
        ),
        (
            {"unusual": (Unusual(what="GIF of mode P", count=3, keys=KEYS[:3]),), "reencoded": 1500},
            ["unusual: 3 images, GIF of mode P: 0.png, 1.png, 2.png", "converted: 1,500 images were re-encoded"],
        ),
        (
            {"duplicates": TWINS},
            [
                "warning: 7 of 300 images of val are in train too, e.g. b.png and a.png",
                "warning: 2 images have a twin of the same bytes in another class, e.g. b.png and a.png",
                "duplicates: 1,234 images of train are copies of others of train, e.g. b.png and a.png",
            ],
        ),
        ({"only_in_train": ("emu",)}, ["warning: 1 classes have no image in val: emu"]),
        ({"classes": (ImageClass(id=0, wnid="cat", name="cat"),)}, ["warning: all images are of one class"]),
    ],
)
def test_each_kind_is_a_sentence_with_its_count_and_the_first_names(fields: dict[str, Any], said: list[str]) -> None:
    assert list(lines(manifest(**fields))) == said
