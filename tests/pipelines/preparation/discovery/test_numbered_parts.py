"""Missing parts of a numbered set are missed, and parts of two sets are told apart."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.preparation.discovery.numbered_parts import refuse_missing_parts
from pipelines.preparation.splits.drawn_splits import Drawing
from tests.pipelines.preparation.sources_on_disk import (
    keys,
    listing_of,
    picture,
    refused,
    structs,
    table,
    tar,
)


@pytest.mark.parametrize("suffix", ["parquet", "tar"])
def test_a_missing_part_of_a_numbered_set_is_missed(tmp_path: Path, seeds: Iterator[int], suffix: str) -> None:
    for n in (0, 2):
        for split in ("train", "val"):
            name = f"{split}-{n:05d}-of-00003.{suffix}"
            if suffix == "tar":
                tar(tmp_path / name, {f"{split}{n}{i}.png": picture(next(seeds)) for i in range(2)}
                    | {f"{split}{n}{i}.cls": str(i).encode() for i in range(2)})  # fmt: skip
            else:
                table(tmp_path, name, {"image": structs(seeds, [f"{split}{n}{i}" for i in range(2)]), "label": [0, 1]})
    refused(
        f"must be there, train-00001-of-00003.{suffix}, val-00001-of-00003.{suffix} is missing", listing_of, tmp_path
    )
    assert len(keys(listing_of(tmp_path, Drawing(allow_missing=True)))) == 4


@pytest.mark.parametrize("older", ["train-00000-of-00002-0a1b2c.parquet", "train-00002-of-00003-ffffff.parquet"])
def test_parts_of_an_older_set_beside_the_new_are_no_more_images(
    tmp_path: Path, seeds: Iterator[int], older: str
) -> None:
    """push_to_hub left the files of the last upload: load_dataset doubled the rows (datasets, "old shards remain")."""
    for name in ("train-00000-of-00002-abc123.parquet", "train-00001-of-00002-def456.parquet", "test.parquet", older):
        table(tmp_path, name, {"image": structs(seeds, [f"{name}{i}" for i in range(2)]), "label": [0, 1]})
    refused("parts of one numbered set only must be there, train-.* and train-.* are of two", listing_of, tmp_path)
    (tmp_path / older).unlink()
    assert len(keys(listing_of(tmp_path))) == 4


def test_a_gap_in_the_numbers_and_a_table_of_the_tars_are_believed(tmp_path: Path) -> None:
    for split, numbers in (("train", (0, 1, 3)), ("val", (0,))):
        for n in numbers:
            sample = {f"{split}{n}{i}.png": picture(n) for i in range(2)}
            tar(tmp_path / f"{split}-{n:06d}.tar", sample | {k[:-4] + ".cls": k[-5:-4].encode() for k in sample})
    refused("must be there, train-000002.tar is missing; --allow-missing goes on without", listing_of, tmp_path)
    (tmp_path / "train-000003.tar").rename(tmp_path / "train-000002.tar")
    assert len(keys(listing_of(tmp_path))) == 6
    info = {"splits": {"train": {"filenames": [f"train-{n:06d}.tar" for n in range(4)], "num_samples": 8}}}
    (tmp_path / "_info.json").write_text(json.dumps(info))
    refused("all tars of _info.json must be there, train-000003.tar is missing", listing_of, tmp_path)


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["train-00000-of-00002", "train-00001-of-00002"], None),
        (["train-1-of-2.tar", "train-2-of-2.tar"], None),
        (["train-00001-of-00002.tar"], "train-00000-of-00002.tar"),
        (["a/x-00001-of-00003-ab.parquet", "b/x-00000-of-00001-cd.parquet"],
         "a/x-00000-of-00003, a/x-00002-of-00003"),
        ([f"x-{n:04d}.tar" for n in range(12) if n not in (3, 4, 5, 6)],
         "x-0003.tar, x-0004.tar, x-0005.tar and 1 more"),
        (["x-0000.tar", "x-0002.tar"], None),
        (["n01440764.tar", "n02102040.tar", "n03888257.tar"], None),
        (["x-0.tar", "x-2.tar", "x-3.tar"], None),
    ],
    ids=["whole", "from one", "first", "two folders", "gap", "too few to tell", "WordNet ids", "one digit"],
)  # fmt: skip
def test_names_tell_what_is_missing(names: list[str], missing: str | None) -> None:
    refuse_missing_parts(names, allowed=True)
    if missing is None:
        refuse_missing_parts(names, allowed=False)
    else:
        sentence = f"all parts of a numbered set must be there, {missing} is missing; --allow-missing goes on without"
        refused(f"^{sentence}$", refuse_missing_parts, names, allowed=False)


@pytest.mark.parametrize("other", ["train-0-of-2-b.tar", "train-1-of-3-a.tar"])
def test_parts_of_two_sets_are_refused_whatever_is_allowed(other: str) -> None:
    refused("parts of one numbered set only", refuse_missing_parts, ["train-0-of-2-a.tar", other], allowed=True)
