"""What users have: ILSVRC2012 archives, class folders, WebDataset tars, Parquet, CIFAR, digits; told by their files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet as pq
from pyarrow.fs import FileType
from pydantic import Field

from pipelines import files, pixels, tars
from pipelines.listing import (
    Listing,
    by_split,
    classes_by_keys,
    container_and_key,
    in_order,
    listed,
    read_class_list,
    some,
)
from pipelines.manifest import Split
from pipelines.storage import Folder, side_by_side
from resnet.recipe import Frozen

Kind = Literal["ilsvrc2012", "folders", "webdataset", "parquet", "cifar10", "cifar100", "digits"]
Read = Callable[[Folder, pa.Table], Iterator[bytes]]

# Folders in which Parquet files and tars are looked for, beside the one that is named.
INSIDE = {"data", "default", "train", *files.VAL_FOLDERS}
COMPRESSED = (".gz", ".tgz", ".zip", ".bz2", ".xz", ".zst")


class Source(Frozen):
    """The images to prepare, train and val."""

    path: Annotated[
        str | None,
        Field(description="folder or URI (s3://, gs://, ...) of the images, or a glob of tars or Parquet files"),
    ] = None
    kind: Annotated[Kind | None, Field(description="what lies there. None: told by the names of the files")] = None
    classes: Annotated[
        str | None,
        Field(
            description="file with a class on each line, in the order of ids: a name, or a WordNet id and a name "
            "(webdataset, parquet; ilsvrc2012: synsets in the order of ILSVRC2012_ID)"
        ),
    ] = None


# --- Parquet, as the Hugging Face hub lays images out ---


def parquet(source: Folder, paths: Sequence[str], class_list: str | None) -> Listing:
    """Parquet files with columns image (struct of bytes and path, or binary) and label. A file's name tells its split.

    Keys are the images' paths where all have one, else row numbers; with the file's name before them where they repeat.
    Classes from `class_list`, from the schema's ClassLabel, from WordNet ids in the keys, else numbers.
    """
    names = read_class_list(class_list)[1] if class_list else None
    tables: dict[Split, pa.Table] = {}
    for split, mine in by_split(paths).items():
        numbered = list(enumerate(mine))
        tables[split] = in_order(side_by_side(source, lambda f: _rows(source, f[1], f[0]), numbered))
        names = names or next((n for path in mine[:1] if (n := _class_names(source, path))), None)
    classes = classes_by_keys(tables["train"], names)
    return Listing("parquet", source, classes, tables).with_distinct_keys(container_and_key)


def _class_names(source: Folder, path: str) -> list[str] | None:
    """Names of the classes from the schema's metadata, as the datasets library writes them."""
    with source.open(path) as stream:
        metadata = pq.read_schema(stream).metadata or {}
    features: Any = json.loads(metadata.get(b"huggingface", b"{}"))
    return features.get("info", {}).get("features", {}).get("label", {}).get("names")


def _image_column(file: pq.ParquetFile, path: str) -> str:
    """The column that holds the images' bytes."""
    leaves = {file.metadata.schema.column(i).path for i in range(file.metadata.num_columns)}
    column = "image.bytes" if "image.bytes" in leaves else "image"
    if not {column, "label"} <= leaves:
        raise ValueError(f"{path} must have columns image (bytes, path) and label, it has {', '.join(sorted(leaves))}")
    return column


def _rows(source: Folder, path: str, number: int) -> pa.Table:
    """Rows of one file: labels and paths are read, images are not. unit: the row group; size: its mean."""
    try:
        with source.open(path) as stream:
            file = pq.ParquetFile(stream)
            column = _image_column(file, path)
            has_paths = column == "image.bytes" and any(
                file.metadata.schema.column(i).path == "image.path" for i in range(file.metadata.num_columns)
            )
            table = file.read(["label", *(["image.path"] if has_paths else [])])
            groups = [file.metadata.row_group(g) for g in range(file.metadata.num_row_groups)]
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no complete Parquet file ({str(error).splitlines()[0]})") from None
    counts = [group.num_rows for group in groups]
    keys: list[Any] = [row["path"] for row in table["image"].to_pylist()] if has_paths else [None]
    keys = [f"{i:06d}" for i in range(table.num_rows)] if None in keys else keys
    labels = [-1 if label is None else label for label in table["label"].to_pylist()]
    sizes = np.repeat([_bytes_of(group, column) // max(1, group.num_rows) for group in groups], counts)
    rows = zip(keys, labels, [path] * len(keys), range(len(keys)), sizes.tolist(), strict=True)
    units = np.repeat(np.arange(len(groups)), counts) + number * 2**32
    return listed(rows).append_column("unit", pa.array(units, pa.int64()))


def _bytes_of(group: Any, column: str) -> int:
    """Bytes of a column in a row group."""
    columns = [group.column(i) for i in range(group.num_columns)]
    return next(c.total_uncompressed_size for c in columns if c.path_in_schema == column)


def read_parquet(source: Folder, rows: pa.Table) -> Iterator[bytes]:
    """The images of rows, in order. Every row group is read once; the images of all rows are held at the same time."""
    paths, offsets = np.asarray(rows["path"].to_pylist(), dtype=object), rows["offset"].to_numpy()
    images: dict[int, bytes] = {}
    for path in sorted(set(paths.tolist())):
        mine = np.flatnonzero(paths == path)
        images |= _read_rows(source, path, {int(offsets[i]): int(i) for i in mine})
    for i in range(len(paths)):
        yield images.pop(i)


def _read_rows(source: Folder, path: str, wanted: dict[int, int]) -> dict[int, bytes]:
    """Images of some rows of a file. wanted: row in the file -> place in the result."""
    images = {}
    with source.open(path) as stream:
        file = pq.ParquetFile(stream)
        column = _image_column(file, path)
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


# --- Which kind it is ---


class Contents(NamedTuple):
    """What a source's folder holds. names: of its entries; chosen: whether a file matches the glob that was given."""

    folder: Folder
    names: set[str]
    chosen: Callable[[str], bool]

    def files(self, suffix: str) -> list[str]:
        """Files with a suffix, here or in one of the folders INSIDE."""
        return [path for path in _walk(self.folder, suffix, "", 2) if self.chosen(path)]


def _walk(folder: Folder, suffix: str, inside: str, depth: int) -> Iterator[str]:
    for entry in folder.entries(inside):
        path = f"{inside}/{entry.name}" if inside else entry.name
        if entry.is_folder and depth and entry.name in INSIDE:
            yield from _walk(folder, suffix, path, depth - 1)
        elif not entry.is_folder and entry.name.endswith(suffix):
            yield path


class Layout(NamedTuple):
    """A kind of source. text: what its folder holds; there: whether it is this kind; read: images of rows, in order."""

    text: str
    there: Callable[[Contents], bool]
    make: Callable[[Contents, str | None], Listing]
    read: Read


def _cifar(kind: str) -> Layout:
    def make(contents: Contents, classes: str | None) -> Listing:
        form = pixels.cifar_form(kind, contents.names)
        if form is None:
            raise ValueError(f"source.path {contents.folder.uri} must hold {KINDS[kind].text}")
        return pixels.cifar(contents.folder, form)

    first = [f.splits["train"][0] for f in pixels.FORMS if f.kind == kind]
    text = f"{kind}'s binary or python form ({' or '.join(first)}, ...)"
    return Layout(text, lambda c: pixels.cifar_form(kind, c.names) is not None, make, pixels.read_cifar)


# In the order in which they are looked for.
KINDS: dict[str, Layout] = {
    "ilsvrc2012": Layout(
        f"{tars.TRAIN}, {tars.VAL} and {tars.DEVKIT}.tar.gz",
        lambda c: tars.TRAIN in c.names,
        lambda c, classes: tars.ilsvrc2012(c.folder, classes),
        files.read_ranges,
    ),
    "cifar10": _cifar("cifar10"),
    "cifar100": _cifar("cifar100"),
    "webdataset": Layout(
        "train-*.tar and val-*.tar",
        lambda c: all(by_split(c.files(".tar")).values()),
        lambda c, classes: tars.webdataset(c.folder, c.files(".tar"), classes),
        files.read_ranges,
    ),
    "parquet": Layout(
        "train-*.parquet and val-*.parquet with columns image and label",
        lambda c: all(by_split(c.files(".parquet")).values()),
        lambda c, classes: parquet(c.folder, c.files(".parquet"), classes),
        read_parquet,
    ),
    "folders": Layout(
        "train/CLASS/ and val/CLASS/",
        lambda c: files.is_class_folders(c.names),
        lambda c, classes: files.class_folders(c.folder),
        files.read_files,
    ),
    "digits": Layout("nothing", lambda c: False, lambda c, classes: pixels.digits(), pixels.read_digits),
}
TAKE_A_CLASS_LIST = ("ilsvrc2012", "webdataset", "parquet")


def list_source(source: Source) -> Listing:
    """Every image of a source. ValueError: it is not there, nothing that can be prepared, or not complete."""
    if source.kind == "digits":
        if source.path is not None or source.classes is not None:
            raise ValueError("source.path and source.classes must be left out with source.kind digits")
        return pixels.digits()
    if source.path is None:
        raise ValueError(f"source.path must name a folder or URI, or source.kind be digits, got {source.kind}")
    contents = _contents(source.path)
    kind = source.kind or next((name for name, layout in KINDS.items() if layout.there(contents)), None)
    if kind is None:
        layouts = "; ".join(f"{name}: {layout.text}" for name, layout in KINDS.items() if name != "digits")
        holds = some(sorted(contents.names)) or "nothing"
        raise ValueError(f"source.path {source.path} must hold one of ({layouts}), it holds {holds}")
    if source.classes is not None and kind not in TAKE_A_CLASS_LIST:
        raise ValueError(f"source.classes must be left out with source.kind {kind}, got {source.classes}")
    return KINDS[kind].make(contents, _class_list(source.classes)).checked()


def read_images(listing_kind: str, folder: Folder, rows: pa.Table) -> Iterator[bytes]:
    """The encoded images of some rows of a listing, in the rows' order."""
    return KINDS[listing_kind].read(folder, rows)


def _contents(path: str) -> Contents:
    """What lies at a source's path, whose last part may be a glob. CIFAR's folder may lie in the one named."""
    head, mark, options = path.partition("?") if "://" in path else (path, "", "")
    parent, _, last = head.rstrip("/").rpartition("/")
    pattern = last if set("*[") & set(last) else None
    folder = Folder((parent or "." if pattern else head) + mark + options)
    found = folder.kind()
    if found == FileType.NotFound:
        raise ValueError(f"source.path must exist, {path} does not")
    if found == FileType.File:
        hint = "a compressed archive, unpack it first" if path.endswith(COMPRESSED) else "a file"
        raise ValueError(f"source.path must be a folder that holds train and val, {path} is {hint}")
    names = {entry.name for entry in folder.entries()}
    for form in pixels.FORMS:
        if form.folder in names:
            return _contents(f"{head.rstrip('/')}/{form.folder}{mark}{options}")
    return Contents(folder, names, lambda file: pattern is None or fnmatch(file.rpartition("/")[2], pattern))


def _class_list(path: str | None) -> str | None:
    if path is None:
        return None
    parent, _, name = path.rpartition("/")
    try:
        return Folder(parent or ".").read(name).decode()
    except OSError:
        raise ValueError(f"source.classes must be a file that can be read, got {path}") from None
