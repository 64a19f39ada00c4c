"""val and test drawn from train: by class and by hash, so that the order of listing does not matter."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipelines.preparation.prepare import verify
from pipelines.preparation.splits.drawn_splits import Drawing
from tests.pipelines.preparation.sources_on_disk import (
    CATS,
    cats_and_dogs,
    fill,
    keys,
    listing_of,
    picture,
    refused,
    structs,
    table,
    write,
)


def test_train_only_needs_a_share_and_gets_it(tmp_path: Path, seeds: Iterator[int]) -> None:
    for n in range(2):
        images = structs(seeds, [f"{n}-{i}.png" for i in range(10)])
        table(tmp_path, f"train-{n:05d}-of-00002.parquet", {"image": images, "label": [i % 2 for i in range(10)]})
    refused("holds 20 images of 2 classes and no split val; --val-share 0.2 draws one", listing_of, tmp_path)
    listing = listing_of(tmp_path, Drawing(val_share=0.2))
    assert {s: len(keys(listing, s)) for s in ("train", "val")} == {"train": 16, "val": 4}


def test_a_folder_without_splits_says_what_it_holds_and_how_to_go_on(tmp_path: Path, seeds: Iterator[int]) -> None:
    for name in CATS:
        fill(tmp_path / name, 10, seeds)
    refused("holds 20 images of 2 classes and no split val; --val-share 0.2 draws one", listing_of, tmp_path)
    listing = listing_of(tmp_path, Drawing(val_share=0.2))
    assert np.bincount(listing.splits["val"]["label"].to_numpy()).tolist() == [2, 2]
    assert keys(listing)[0].startswith("cat/")


def test_a_drawn_split_is_the_same_whatever_the_order_of_listing(tmp_path: Path, seeds: Iterator[int]) -> None:
    numbers = list(range(30))
    drawn = []
    for name in ("a", "b"):
        for i in numbers if name == "a" else numbers[::-1]:
            for label, cat in enumerate(CATS):
                folder = tmp_path / name / cat
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{i}.png").write_bytes(picture(100 * label + i))
        drawn.append(sorted(keys(listing_of(tmp_path / name, Drawing(val_share=0.2, test_share=0.1)), "val")))
    assert drawn[0] == drawn[1]
    other = listing_of(tmp_path / "a", Drawing(val_share=0.2, test_share=0.1, seed=1))
    assert sorted(keys(other, "val")) != drawn[0]
    counts = {s: np.bincount(other.splits[s]["label"].to_numpy()).tolist() for s in other.present}
    assert counts == {"train": [21, 21], "val": [6, 6], "test": [3, 3]}


def test_more_images_move_few_between_train_and_val(tmp_path: Path, seeds: Iterator[int]) -> None:
    """random.shuffle over a longer list moves nearly all; a hash moves none but at the border."""
    for name in CATS:
        fill(tmp_path / name, 50, seeds)
    before = set(keys(listing_of(tmp_path, Drawing(val_share=0.2)), "val"))
    for name in CATS:
        fill(tmp_path / name, 5, seeds, "new{}.png")
    after = set(keys(listing_of(tmp_path, Drawing(val_share=0.2)), "val"))
    assert len(before - after) <= 4


def test_a_test_split_is_written_and_nothing_else_changes(tmp_path: Path, seeds: Iterator[int]) -> None:
    for name in CATS:
        fill(tmp_path / "images" / name, 20, seeds)
    drawing = Drawing(val_share=0.2, test_share=0.2)
    manifest = write(tmp_path / "images", tmp_path / "out", drawing=drawing)
    assert [manifest.examples(s) for s in ("train", "val", "test")] == [24, 8, 8]
    assert manifest.splitting is not None
    assert (manifest.splitting.val_share, manifest.splitting.test_share) == (0.2, 0.2)
    assert verify(str(tmp_path / "out")) == []
    refused(
        "was written with splitting val_share 0.2, .*, now it is val_share 0.3",
        write, tmp_path / "images", tmp_path / "out", drawing=Drawing(val_share=0.3, test_share=0.2),
    )  # fmt: skip


def test_the_sources_own_test_split_is_kept_by_an_option(tmp_path: Path, seeds: Iterator[int]) -> None:
    """train/, val/ and test/ by class, as chest X-rays come: test was passed over without a word."""
    root = cats_and_dogs(tmp_path, seeds)
    for name in CATS:
        fill(root / "test" / name, 3, seeds)
    assert "test/" in str(listing_of(root).passed_over)
    assert len(keys(listing_of(root, Drawing(keep_test=True)), "test")) == 6


def test_one_class_alone_cannot_be_split(tmp_path: Path, seeds: Iterator[int]) -> None:
    fill(tmp_path / "cat", 9, seeds)
    refused(
        "images must be of two classes at least for val_share, all 9 are of cat",
        listing_of,
        tmp_path,
        Drawing(val_share=0.2),
    )
