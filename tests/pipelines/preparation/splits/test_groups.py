"""Groups of images, by a table, a folder or a pattern, are never on both sides of a split."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.preparation.listing import Listing
from pipelines.preparation.splits.drawn_splits import Drawing
from pipelines.preparation.splits.groups import GroupBy
from tests.pipelines.preparation.sources_on_disk import (
    CATS,
    fill,
    keys,
    listing_of,
    refused,
)


def patients(root: Path, seeds: Iterator[int]) -> list[tuple[str, str]]:
    """Twelve patients with five images each, folder by patient; returns (file, patient) of each."""
    rows = []
    for p in range(12):
        fill(root / CATS[p % 2] / f"p{p:02d}", 5, seeds, f"p{p:02d}_" + "{}.png")
        rows += [(f"{CATS[p % 2]}/p{p:02d}/p{p:02d}_{i}.png", f"patient {p}") for i in range(5)]
    return rows


def test_a_group_is_never_on_both_sides(tmp_path: Path, seeds: Iterator[int]) -> None:
    rows = patients(tmp_path / "images", seeds)
    table = tmp_path / "patients.csv"
    table.write_text("filename;patient\n" + "".join(f"{f.rpartition('/')[2]};{p}\n" for f, p in rows[::-1]))
    found = []
    for group in (
        GroupBy(csv=str(table), column="patient"),
        GroupBy(part=2),
        GroupBy(part=-1),
        GroupBy(pattern=r"(p\d+)_"),
    ):
        listing = listing_of(tmp_path / "images", Drawing(val_share=0.25, test_share=0.2, group=group))
        sides = [{key.split("/")[1] for key in keys(listing, s)} for s in listing.present]
        assert len(sides) == 3
        assert sum(map(len, sides)) == len(set().union(*sides)) == 12
        assert 8 <= len(keys(listing, "val")) <= 20
        found.append(sides)
    assert found[1] == found[2] == found[3], "the same groups by another way"


@pytest.mark.parametrize(
    ("drawing", "sentence"),
    [
        ({"group": GroupBy(part=3)}, "every image must have a group by part 3 of the path, 60 have none"),
        ({"group": GroupBy(pattern="(p0.)_")}, "every image must have a group by pattern .*, 10 have none"),
        ({"group": GroupBy(pattern="p")}, "must be of two groups at least by pattern p of the path, all 60 are of p"),
    ],
)
def test_groups_with_gaps_are_one_sentence_before_any_work(
    tmp_path: Path, seeds: Iterator[int], drawing: dict[str, Any], sentence: str
) -> None:
    patients(tmp_path, seeds)
    refused(sentence, listing_of, tmp_path, Drawing(val_share=0.2, **drawing))


def test_a_table_of_groups_with_gaps_or_contradictions_is_one_sentence(tmp_path: Path, seeds: Iterator[int]) -> None:
    rows = patients(tmp_path / "images", seeds)
    table, by = tmp_path / "patients.csv", GroupBy(csv=str(tmp_path / "patients.csv"), column="patient")

    def listing() -> Listing:
        return listing_of(tmp_path / "images", Drawing(val_share=0.2, group=by))

    refused("group_csv must be a file that can be read", listing)
    table.write_text("file,patient\n" + "".join(f"{f},{p if i else ''}\n" for i, (f, p) in enumerate(rows)))
    refused("every image must have a group by column patient of .*, 1 have none: cat/p00/p00_0.png", listing)
    table.write_text("file,patient\na.png,1\na.png,2\n")
    refused("must have one patient an image, a.png has 1 and 2", listing)
    table.write_text("file,person\na.png,1\n")
    refused("must have a column patient, it has file, person", listing)


def test_a_class_of_one_group_or_one_image_stays_in_train(tmp_path: Path, seeds: Iterator[int]) -> None:
    patients(tmp_path, seeds)
    fill(tmp_path / "emu" / "p99", 4, seeds)
    listing = listing_of(tmp_path, Drawing(val_share=0.2, group=GroupBy(part=2)))
    assert listing.only_in_train() == ("emu",)
    fill(tmp_path / "fox", 1, seeds)
    assert "fox" in listing_of(tmp_path, Drawing(val_share=0.2)).only_in_train()
