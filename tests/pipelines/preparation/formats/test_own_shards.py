"""Shards of this project as a source keep their classes and keys."""

from collections.abc import Iterator
from pathlib import Path

from pyarrow import parquet as pq

from tests.pipelines.preparation.sources_on_disk import (
    cats_and_dogs,
    write,
)


def test_shards_that_are_prepared_again_keep_their_classes_and_keys(tmp_path: Path, seeds: Iterator[int]) -> None:
    """Shards of this project made smaller: numbers for classes and rows for keys came without a word."""
    first = write(cats_and_dogs(tmp_path / "images", seeds), tmp_path / "first", row_group_size=4)
    second = write(tmp_path / "first", tmp_path / "second")
    assert second.classes == first.classes
    kept = []
    for name in ("first", "second"):
        tables = [pq.read_table(path, columns=["key", "label"]) for path in (tmp_path / name).glob("*.parquet")]
        kept.append(sorted(str(row) for table in tables for row in table.to_pylist()))
    assert kept[0] == kept[1]
