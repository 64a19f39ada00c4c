"""Validation images without class folders take their labels from the file that came with them."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.preparation.sources_on_disk import (
    fill,
    keys,
    labels,
    listing_of,
    passed,
    refused,
)

WNIDS = ("n01440764", "n02102040")


def kaggle(root: Path, seeds: Iterator[int]) -> Path:
    inside = root / "ILSVRC" / "Data" / "CLS-LOC"
    for wnid in WNIDS:
        fill(inside / "train" / wnid, 3, seeds, wnid + "_{}.JPEG")
    fill(inside / "val", 4, seeds, "ILSVRC2012_val_0000000{}.JPEG")
    fill(inside / "test", 2, seeds, "ILSVRC2012_test_0000000{}.JPEG")
    rows = [(f"ILSVRC2012_val_0000000{i}", f"{WNIDS[i % 2]} 85 1 499 272 ") for i in range(4)]
    with (root / "LOC_val_solution.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("ImageId", "PredictionString"), *rows])
    (root / "LOC_synset_mapping.txt").write_text("n01440764 tench, Tinca tinca\nn02102040 English springer\n")
    return root


@pytest.mark.parametrize("inside", ["", "ILSVRC/Data/CLS-LOC"])
def test_kaggles_imagenet_is_read_where_it_was_unpacked(tmp_path: Path, seeds: Iterator[int], inside: str) -> None:
    listing = listing_of(kaggle(tmp_path, seeds) / inside)
    assert labels(listing, "val") == {
        f"{WNIDS[i % 2]}/ILSVRC2012_val_0000000{i}.JPEG": ("tench", "English springer")[i % 2] for i in range(4)
    }
    assert len(keys(listing)) == 6
    assert passed(listing) == {"files and folders beside the classes": 1}, "test/ has no labels"


def test_kaggles_solution_that_does_not_fit_is_one_sentence(tmp_path: Path, seeds: Iterator[int]) -> None:
    root = kaggle(tmp_path, seeds)
    (root / "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000002.JPEG").rename(root / "lost.JPEG")
    refused(
        "must hold each of the 4 images of LOC_val_solution.csv, ILSVRC2012_val_00000002 is missing", listing_of, root
    )
    fill(root / "ILSVRC/Data/CLS-LOC/val", 5, seeds, "ILSVRC2012_val_0000000{}.JPEG")
    refused("LOC_val_solution.csv must have a line for each of 5 images, .*4.JPEG has none", listing_of, root)
    (root / "LOC_val_solution.csv").unlink()
    refused("must hold a folder for each class.* LOC_val_solution.csv", listing_of, root / "ILSVRC/Data/CLS-LOC")


def test_tiny_imagenet_200_is_read(tmp_path: Path, seeds: Iterator[int]) -> None:
    for wnid in WNIDS:
        fill(tmp_path / "train" / wnid / "images", 3, seeds, wnid + "_{}.JPEG")
        (tmp_path / "train" / wnid / f"{wnid}_boxes.txt").write_text("boxes")
    fill(tmp_path / "val" / "images", 4, seeds, "val_{}.JPEG")
    fill(tmp_path / "test" / "images", 2, seeds, "test_{}.JPEG")
    lines = [f"val_{i}.JPEG\t{WNIDS[i % 2]}\t0\t32\t44\t62\n" for i in range(4)]
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(lines))
    (tmp_path / "wnids.txt").write_text("\n".join(WNIDS[::-1]))
    (tmp_path / "words.txt").write_text("n01440764\ttench, Tinca tinca\nn02102040\tspringer\n")
    listing = listing_of(tmp_path)
    assert [c.wnid for c in listing.classes] == sorted(WNIDS)
    assert list(labels(listing, "val").values()) == ["tench", "English springer"] * 2
    assert passed(listing) == {"files named .txt": 5, "files and folders beside the classes": 1}


def test_validation_images_of_ilsvrc2012_that_nobody_sorted_take_the_kits_truth(
    tmp_path: Path, seeds: Iterator[int]
) -> None:
    """val/ unpacked flat: valprep.sh was forgotten, and ImageFolder says it found no class folder."""
    for wnid in WNIDS:
        fill(tmp_path / "train" / wnid, 3, seeds)
    fill(tmp_path / "val", 3, seeds, "ILSVRC2012_val_0000000{}.JPEG")
    (tmp_path / "val" / "ILSVRC2012_val_00000000.JPEG").rename(tmp_path / "val" / "ILSVRC2012_val_00000003.JPEG")
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n1\n2\n")
    (tmp_path / "synsets.txt").write_text("n02102040\nn01440764\n")
    assert labels(listing_of(tmp_path), "val")["n02102040/ILSVRC2012_val_00000002.JPEG"] == "English springer"
