"""The columns of images and labels, by the names and types that sets on the hub have."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.preparation.prepare import write_shards
from pipelines.preparation.sources import Source
from tests.pipelines.preparation.sources_on_disk import (
    labels,
    listing_of,
    refused,
    structs,
    table,
)


def test_columns_img_and_fine_label_and_others_by_option(tmp_path: Path, seeds: Iterator[int]) -> None:
    features = {"fine_label": {"_type": "ClassLabel", "names": ["apple", "bee"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for split in ("train", "test"):
        images = structs(seeds, [f"{split}{i}.png" for i in range(3)])
        table(
            tmp_path / "c",
            f"{split}.parquet",
            {"img": images, "fine_label": [0, 1, 1], "coarse_label": [9, 9, 9]},
            metadata,
        )
        table(tmp_path / "o", f"{split}.parquet", {"scan": images, "grade": ["b", "a", "b"]})
    assert list(labels(listing_of(tmp_path / "c")).values()) == ["apple", "bee", "bee"]
    refused("train.parquet must have columns .* it has grade, scan; --source.image-column", listing_of, tmp_path / "o")
    other = listing_of(tmp_path / "o", image_column="scan", label_column="grade")
    assert list(labels(other).values()) == ["b", "a", "b"]
    source = Source(path=str(tmp_path / "o"), image_column="scan", label_column="grade")
    assert write_shards(source, str(tmp_path / "out"), workers=0).examples("train") == 3


def test_names_as_labels_are_sorted_and_files_of_mixed_types_are_named(tmp_path: Path, seeds: Iterator[int]) -> None:
    for n, values in enumerate((["cat", "dog"], ["dog", "cat"])):
        table(tmp_path, f"train-{n}.parquet", {"image": structs(seeds, [f"{n}{i}" for i in range(2)]), "label": values})
    table(tmp_path, "test-0.parquet", {"image": structs(seeds, ["x"]), "label": pa.array(["dog"]).dictionary_encode()})
    listing = listing_of(tmp_path)
    assert [c.name for c in listing.classes] == ["cat", "dog"]
    assert list(labels(listing, "val").values()) == ["dog"]
    table(tmp_path, "train-2.parquet", {"image": structs(seeds, ["y"]), "label": [1]})
    refused("train-2.parquet has numbers and train-0.parquet has names", listing_of, tmp_path)


def test_parquet_that_names_files_instead_of_holding_images_is_one_sentence(tmp_path: Path) -> None:
    """datasets without embedded bytes: image = {bytes: None, path: /home/...}; every image would be 'empty'."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for split in ("train", "test"):
        column = pa.array([{"bytes": None, "path": "/home/me/1.png"}] * 3, kind)
        table(tmp_path, f"{split}.parquet", {"image": column, "label": [0, 1, 1]})
    refused("test.parquet must hold the images|train.parquet must hold the images", listing_of, tmp_path)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (pa.array([0.0, 1.0, 1.0]), None),
        (pa.array([0.0, 0.5, 1.0]), "must hold whole numbers or names, it holds fractions"),
        (pa.array([[0], [1], [0, 1]]), "must hold one number or name an image, it holds list"),
    ],
)
def test_labels_that_pandas_made_floats_are_read_and_lists_are_named(
    tmp_path: Path, seeds: Iterator[int], values: pa.Array, sentence: str | None
) -> None:
    """A column with a missing value becomes float64 in pandas; a multi-label set has lists."""
    for split in ("train", "test"):
        table(
            tmp_path, f"{split}.parquet", {"image": structs(seeds, [f"{split}{i}" for i in range(3)]), "label": values}
        )
    if sentence is None:
        assert list(labels(listing_of(tmp_path)).values()) == ["0", "1", "1"]
    else:
        refused(sentence, listing_of, tmp_path)
