"""Which columns of a Parquet file hold the images and the labels, and what the labels are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute
from pyarrow import parquet as pq

from pipelines.listing import some

pc: Any = pyarrow.compute  # its functions are made at import, a type checker sees none
# Names that sets on the Hugging Face hub use, in the order in which they are taken.
IMAGES = ("image", "img", "image_bytes", "jpg", "png")
LABELS = ("label", "labels", "fine_label", "class", "cls", "target", "category", "class_label", "label_name")


class Columns(NamedTuple):
    """Columns of a file. image: leaf with the bytes; path: leaf with its path or key; names: of ClassLabel."""

    image: str
    label: str
    path: str | None
    names: list[str] | None


def image_column(schema: pa.Schema, wanted: str | None, file: str) -> str:
    """The leaf that holds the images' bytes. ValueError: there is none."""
    for name in (wanted,) if wanted else IMAGES:
        if name in schema.names:
            kind = schema.field(name).type
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                return f"{name}.bytes"
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                return name
            raise ValueError(f"{file}: column {name} must hold encoded images (bytes, path), it holds {kind}")
    raise ValueError(_missing(schema, file))


def columns_of(schema: pa.Schema, image: str | None, label: str | None, file: str) -> Columns:
    """The columns of a file, those that are asked for or those of the usual names. ValueError: they are not there."""
    found = next((name for name in ((label,) if label else LABELS) if name in schema.names), None)
    leaf = image_column(schema, image, file)
    if found is None:
        raise ValueError(_missing(schema, file))
    struct = leaf.removesuffix(".bytes")
    has_path = leaf != struct and schema.field(struct).type.get_field_index("path") >= 0
    key = "key" if "key" in schema.names and pa.types.is_string(schema.field("key").type) else None  # our own shards
    return Columns(leaf, found, f"{struct}.path" if has_path else key, _names(schema, found))


def key_texts(table: pa.Table, columns: Columns) -> list[str]:
    """The images' paths or keys where all have one, else row numbers."""
    keys: list[str | None] = [None]
    if columns.path is not None:
        column = table[columns.path.removesuffix(".path")]
        keys = [row["path"] if isinstance(row, dict) else row for row in column.to_pylist()]
    named = [key for key in keys if key is not None]
    return named if len(named) == table.num_rows else [f"{i:06d}" for i in range(table.num_rows)]


def _missing(schema: pa.Schema, file: str) -> str:
    return (
        f"{file} must have columns image (bytes, path) and label, it has {', '.join(sorted(schema.names))}; "
        "--source.image-column and --source.label-column name others"
    )


def _names(schema: pa.Schema, label: str) -> list[str] | None:
    """Names of the classes from the schema's metadata, as the datasets library writes them."""
    try:
        features: Any = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return features["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return None  # no ClassLabel: its absence is no mistake


def label_texts(labels: pa.ChunkedArray, file: str, column: str) -> tuple[pa.ChunkedArray, bool]:
    """Labels as text, -1 for absent ones; and whether they are names. ValueError: neither numbers nor names."""
    kind = labels.type
    if pa.types.is_dictionary(kind):
        labels = pc.cast(labels, kind.value_type)
        kind = labels.type
    named = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    try:
        if pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            labels = pc.cast(labels, pa.int64())
        elif not named and not pa.types.is_integer(kind):
            raise ValueError(f"{file}: column {column} must hold one number or name an image, it holds {kind}")
    except pa.ArrowInvalid:
        raise ValueError(f"{file}: column {column} must hold whole numbers or names, it holds fractions") from None
    return pc.fill_null(pc.cast(labels, pa.string()), "-1"), named


def refuse_paths_only(file: pq.ParquetFile, columns: Columns, path: str) -> None:
    """ValueError: the file names images that lie elsewhere instead of holding them."""
    metadata = file.metadata
    if columns.path is None or columns.path == "key" or not metadata.num_rows:
        return
    for g in range(metadata.num_row_groups):
        group = metadata.row_group(g)
        leaf = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == columns.image)
        nulls = leaf.statistics.null_count if leaf.statistics is not None else None
        if nulls is None or nulls < group.num_rows:
            return
    raise ValueError(
        f"{path} must hold the images, its {columns.image} is empty and it names files: {some([columns.path])}"
    )


def refuse_mixed(named: Mapping[str, bool]) -> None:
    """ValueError: some files have numbers for labels, others names."""
    if len(set(named.values())) > 1:
        numbers, names = (next(f for f, is_name in named.items() if is_name is kind) for kind in (False, True))
        raise ValueError(f"labels must be all numbers or all names, {numbers} has numbers and {names} has names")


class FileRows(NamedTuple):
    """Rows of one file. named: whether labels are names; names: of its ClassLabel."""

    table: pa.Table
    named: bool
    names: list[str] | None
