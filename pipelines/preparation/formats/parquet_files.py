"""Parquet files with images, as the datasets library writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet as pq

from pipelines.preparation.discovery.label_names import TEXTS, with_ids
from pipelines.preparation.discovery.numbered_parts import refuse_missing_parts
from pipelines.preparation.discovery.passing_over import Passing
from pipelines.preparation.formats.own_shards import with_their_classes
from pipelines.preparation.formats.parquet_columns import (
    FileRows,
    columns_of,
    image_column,
    key_texts,
    label_texts,
    refuse_mixed,
    refuse_paths_only,
)
from pipelines.preparation.listing import Asked, Listing, chosen_splits, container_and_key, container_row_and_key
from pipelines.shards.manifest import SplitName
from pipelines.storage import Folder, side_by_side


def parquet(source: Folder, paths: Sequence[str], asked: Asked) -> Listing:
    """Parquet files with a column of images (struct of bytes and path, or binary) and one of labels (numbers, names).

    A file's name tells its split; all are train's where none does. Keys are the images' paths where all have one, else
    row numbers; with the file's name before them where they repeat. Classes of numbers from `asked.classes`, from the
    schema's ClassLabel, from WordNet ids in the keys, else numbers.
    """
    passing, named, names = Passing(), {}, None
    refuse_missing_parts(paths, asked.allow_missing)
    tables: dict[SplitName, pa.Table] = {}
    for split, mine in chosen_splits(paths, asked, passing).items():
        found = side_by_side(source, lambda f: _rows(source, f[1], f[0], asked), list(enumerate(mine)))
        named |= dict(zip(mine, (rows.named for rows in found), strict=True))
        names = names or next((rows.names for rows in found if rows.names), None)
        tables[split] = pa.concat_tables([rows.table for rows in found])
    refuse_mixed(named)
    listing = with_ids("parquet", source, tables, asked.classes, any(named.values()), names)
    listing = listing if asked.classes or any(named.values()) else with_their_classes(listing)
    return replace(listing, passed_over=passing.told()).with_distinct_keys(container_and_key, container_row_and_key)


def _rows(source: Folder, path: str, number: int, asked: Asked) -> FileRows:
    """Rows of one file: labels and paths are read, images are not. unit: the row group; size: its mean."""
    try:
        with source.open(path) as stream:
            file = pq.ParquetFile(stream)
            columns = columns_of(file.schema_arrow, asked.image_column, asked.label_column, path)
            refuse_paths_only(file, columns, path)
            table = file.read([columns.label, *([columns.path] if columns.path else [])])
            groups = [file.metadata.row_group(g) for g in range(file.metadata.num_row_groups)]
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no complete Parquet file ({str(error).splitlines()[0]})") from None
    counts = [group.num_rows for group in groups]
    texts, named = label_texts(table[columns.label], path, columns.label)
    keys = key_texts(table, columns)
    sizes = np.repeat([_bytes_of(group, columns.image) // max(1, group.num_rows) for group in groups], counts)
    values = (keys, texts.to_pylist(), [path] * len(keys), range(len(keys)), sizes.tolist())
    rows = pa.table([pa.array(v, f.type) for v, f in zip(values, TEXTS, strict=True)], schema=TEXTS)
    units = np.repeat(np.arange(len(groups)), counts) + number * 2**32
    rows = rows.append_column("unit", pa.array(units, pa.int64()))
    if asked.image_column:
        rows = rows.append_column("column", pa.array([asked.image_column] * len(rows), pa.string()))
    return FileRows(rows, named, columns.names)


def _bytes_of(group: Any, column: str) -> int:
    """Bytes of a column in a row group."""
    columns = [group.column(i) for i in range(group.num_columns)]
    return next(c.total_uncompressed_size for c in columns if c.path_in_schema == column)


def read_parquet(source: Folder, rows: pa.Table) -> Iterator[bytes]:
    """The images of rows, in order. Every row group is read once; the images of all rows are held at the same time."""
    paths, offsets = np.asarray(rows["path"].to_pylist(), dtype=object), rows["offset"].to_numpy()
    wanted = rows["column"][0].as_py() if "column" in rows.column_names and len(rows) else None
    images: dict[int, bytes] = {}
    for path in sorted(set(paths.tolist())):
        mine = np.flatnonzero(paths == path)
        images |= _read_rows(source, path, {int(offsets[i]): int(i) for i in mine}, wanted)
    for i in range(len(paths)):
        yield images.pop(i)


def _read_rows(source: Folder, path: str, wanted: dict[int, int], image: str | None) -> dict[int, bytes]:
    """Images of some rows of a file. wanted: row in the file -> place in the result."""
    images = {}
    with source.open(path) as stream:
        file = pq.ParquetFile(stream)
        column = image_column(file.schema_arrow, image, path)
        counts = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
        starts = np.cumsum([0, *counts])
        for group in np.unique(np.searchsorted(starts, list(wanted), side="right") - 1):
            row = int(starts[group])
            for batch in file.iter_batches(32, row_groups=[int(group)], columns=[column], use_threads=False):
                values = batch.column(0)
                values = values.field("bytes") if pa.types.is_struct(values.type) else values
                places = [(wanted[row + i], i) for i in range(len(values)) if row + i in wanted]
                images |= {place: values[i].as_py() or b"" for place, i in places}
                row += len(values)
    return images
