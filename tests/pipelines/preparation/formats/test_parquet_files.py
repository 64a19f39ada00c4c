"""Parquet files with images, as the Hugging Face hub lays them out, are read exactly."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from pipelines.preparation.sources import Source, list_source, read_images
from tests.pipelines.preparation.sources_on_disk import (
    jpeg,
    keys,
    listing_of,
    read_back,
    structs,
    table,
)


def write_parquet(root: Path, *, struct_column: bool = True, paths: bool = True) -> dict[str, Any]:
    """As the Hugging Face hub lays a set out: data/, three row groups a file, ClassLabel names in the schema."""
    (root / "data").mkdir()
    features = {"image": {"_type": "Image"}, "label": {"names": ["kit fox", "tench"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    expected: dict[str, Any] = {"train": {}, "val": {}}
    for name, split, count in (("train", "train", 2), ("validation", "val", 1), ("test", None, 1)):
        for f in range(count):
            images = [jpeg(100 * f + i + (1000 if split == "val" else 0)) for i in range(7)]
            keys = [f"{name}-{f}-{i}.JPEG" for i in range(7)]
            labels = [i % 2 if split else -1 for i in range(7)]
            structs = [{"bytes": d, "path": k if paths else None} for d, k in zip(images, keys, strict=True)]
            column = pa.array(structs) if struct_column else pa.array(images)
            table = pa.table({"image": column, "label": pa.array(labels, pa.int64())})
            file = f"{name}-{f:05d}-of-{count:05d}"
            pq.write_table(table.replace_schema_metadata(metadata), root / "data" / f"{file}.parquet", row_group_size=3)
            if split:
                named = paths and struct_column
                found = keys if named else [f"data/{file}/{i:06d}" for i in range(7)]
                expected[split] |= dict(zip(found, zip(labels, images, strict=True), strict=True))
    return expected


@pytest.mark.parametrize("form", [{}, {"paths": False}, {"struct_column": False}])
def test_parquet_is_read_exactly(tmp_path: Path, form: dict[str, bool]) -> None:
    expected = write_parquet(tmp_path, **form)
    listing = list_source(Source(path=str(tmp_path)))
    assert (listing.kind, read_back(listing)) == ("parquet", expected)
    assert [c.name for c in listing.classes] == ["kit fox", "tench"]


def test_parquet_without_the_columns_or_cut_off_is_named(tmp_path: Path) -> None:
    for split in ("train", "val"):
        pq.write_table(pa.table({"picture": [b"x"], "label": [0]}), tmp_path / f"{split}.parquet")
    with pytest.raises(ValueError, match=r"must have columns image .* it has label, picture"):
        list_source(Source(path=str(tmp_path)))
    (tmp_path / "train.parquet").write_bytes((tmp_path / "train.parquet").read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"train.parquet is no complete Parquet file"):
        list_source(Source(path=str(tmp_path)))


def test_paths_that_repeat_in_a_file_get_file_and_row_before_them(tmp_path: Path, seeds: Iterator[int]) -> None:
    for split in ("train", "validation"):
        columns = {"image": structs(seeds, ["0001.png", "0001.png", "0002.png"]), "label": [0, 1, 1]}
        table(tmp_path / "data", f"{split}-00000-of-00001.parquet", columns)
    listing = listing_of(tmp_path)
    assert keys(listing)[1] == "data/train-00000-of-00001/000001/0001.png"
    assert len(list(read_images("parquet", listing.source, listing.splits["train"]))) == 3
