"""What users have: ILSVRC2012 archives, class folders, WebDataset tars, Parquet, CIFAR, digits; told by their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet as pq
from pydantic import Field

from pipelines import files, flat_validation, pixels, tars
from pipelines.drawn_splits import Drawing, draw
from pipelines.label_names import TEXTS, with_ids
from pipelines.listing import (
    Asked,
    Listing,
    chosen_splits,
    container_and_key,
    container_row_and_key,
    some,
    text_file,
)
from pipelines.manifest import Split
from pipelines.numbered_parts import refuse_missing_parts
from pipelines.own_shards import with_their_classes
from pipelines.parquet_columns import (
    FileRows,
    columns_of,
    image_column,
    key_texts,
    label_texts,
    refuse_mixed,
    refuse_paths_only,
)
from pipelines.passing_over import Passing
from pipelines.source_contents import COMPRESSED, Contents, contents_of, has_class_folders, has_splits, inside_alone
from pipelines.split_folders import by_name
from pipelines.storage import Folder, side_by_side
from resnet.recipe import Frozen

Kind = Literal[
    "ilsvrc2012", "kaggle", "tiny-imagenet", "folders", "webdataset", "parquet", "cifar10", "cifar100", "digits"
]
Read = Callable[[Folder, pa.Table], Iterator[bytes]]


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
    image_column: Annotated[
        str | None,
        Field(description="parquet: column of the images; webdataset: suffix of the images that count, e.g. input.jpg"),
    ] = None
    label_column: Annotated[
        str | None,
        Field(description="parquet: column of the labels; webdataset: field of the .json, or `folder`, or `tar`"),
    ] = None


# --- Parquet, as the Hugging Face hub lays images out ---


def parquet(source: Folder, paths: Sequence[str], asked: Asked) -> Listing:
    """Parquet files with a column of images (struct of bytes and path, or binary) and one of labels (numbers, names).

    A file's name tells its split; all are train's where none does. Keys are the images' paths where all have one, else
    row numbers; with the file's name before them where they repeat. Classes of numbers from `asked.classes`, from the
    schema's ClassLabel, from WordNet ids in the keys, else numbers.
    """
    passing, named, names = Passing(), {}, None
    refuse_missing_parts(paths, asked.allow_missing)
    tables: dict[Split, pa.Table] = {}
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


# --- Which kind it is ---


class Layout(NamedTuple):
    """A kind of source. text: what its folder holds; there: whether it is this kind; read: images of rows, in order.

    unsplit: whether it is this kind without a split val, which is looked for after all others; None: never.
    """

    text: str
    there: Callable[[Contents], bool]
    make: Callable[[Contents, Asked], Listing]
    read: Read
    unsplit: Callable[[Contents], bool] | None = None


def _cifar(kind: str) -> Layout:
    def make(contents: Contents, asked: Asked) -> Listing:
        form = pixels.cifar_form(kind, contents.names)
        if form is None:
            raise ValueError(f"source.path {contents.folder.uri} must hold {KINDS[kind].text}")
        return pixels.cifar(contents.folder, form)

    first = [f.splits["train"][0] for f in pixels.FORMS if f.kind == kind]
    text = f"{kind}'s binary or python form ({' or '.join(first)}, ...)"
    return Layout(text, lambda c: pixels.cifar_form(kind, c.names) is not None, make, pixels.read_cifar)


def _kaggle(contents: Contents, asked: Asked) -> Listing:
    """ILSVRC/Data/CLS-LOC/ as Kaggle's archive has it, beside LOC_val_solution.csv."""
    names = flat_validation.names_of(contents.folder, "LOC_synset_mapping.txt")
    return files.class_folders(contents.folder, asked, flat_validation.INSIDE_KAGGLE, names)


def _tiny_imagenet(contents: Contents, asked: Asked) -> Listing:
    """tiny-imagenet-200: train/WNID/images/, val/images/ and val/val_annotations.txt."""
    return files.class_folders(contents.folder, asked, names=flat_validation.names_of(contents.folder, "words.txt"))


# In the order in which they are looked for.
KINDS: dict[str, Layout] = {
    "ilsvrc2012": Layout(
        f"{tars.TRAIN}, {tars.VAL} and {tars.DEVKIT}.tar.gz",
        lambda c: tars.TRAIN in c.names,
        lambda c, asked: tars.ilsvrc2012(c.folder, asked.classes),
        files.read_ranges,
    ),
    "cifar10": _cifar("cifar10"),
    "cifar100": _cifar("cifar100"),
    "kaggle": Layout(
        f"{flat_validation.INSIDE_KAGGLE}/ and {flat_validation.KAGGLE}",
        lambda c: {"ILSVRC", flat_validation.KAGGLE} <= c.names,
        _kaggle,
        files.read_files,
    ),
    "tiny-imagenet": Layout(
        "wnids.txt, train/WNID/images/ and val/val_annotations.txt",
        lambda c: {"wnids.txt", "train", "val"} <= c.names,
        _tiny_imagenet,
        files.read_files,
    ),
    "webdataset": Layout(
        "train-*.tar and val-*.tar",
        lambda c: has_splits(c, ".tar"),
        lambda c, asked: tars.webdataset(c.folder, c.files(".tar"), asked),
        files.read_ranges,
        lambda c: bool(c.files(".tar")),
    ),
    "parquet": Layout(
        "train-*.parquet and val-*.parquet with columns image and label",
        lambda c: has_splits(c, ".parquet"),
        lambda c, asked: parquet(c.folder, c.files(".parquet"), asked),
        read_parquet,
        lambda c: bool(c.files(".parquet")),
    ),
    "folders": Layout(
        "train/CLASS/ and val/CLASS/, or CLASS/ alone",
        lambda c: {"train", "val"} <= set(by_name(c.names)),
        lambda c, asked: files.class_folders(c.folder, asked),
        files.read_files,
        lambda c: "train" in by_name(c.names) or has_class_folders(c),
    ),
    "digits": Layout("nothing", lambda c: False, lambda c, asked: pixels.digits(), pixels.read_digits),
}
TAKE_A_CLASS_LIST = ("ilsvrc2012", "webdataset", "parquet")
TAKE_COLUMNS = ("webdataset", "parquet")
# Looked for first where there is no val: class folders may have a tar beside them, tars no class folders.
UNSPLIT = ("folders", "webdataset", "parquet")


def list_source(source: Source, drawing: Drawing | None = None) -> Listing:
    """Every image of a source. ValueError: it is not there, nothing that can be prepared, or not complete."""
    drawing = drawing or Drawing()
    if source.kind == "digits":
        if source != Source(kind="digits") or drawing.draws:
            raise ValueError("source.path, source.classes and shares must be left out with source.kind digits")
        return pixels.digits()
    if source.path is None:
        raise ValueError(f"source.path must name a folder or URI, or source.kind be digits, got {source.kind}")
    contents, kind = _kind_at(source)
    for name, takers in (
        ("classes", TAKE_A_CLASS_LIST),
        ("image_column", TAKE_COLUMNS),
        ("label_column", TAKE_COLUMNS),
    ):
        if getattr(source, name) is not None and kind not in takers:
            raise ValueError(f"source.{name} must be left out with source.kind {kind}, got {getattr(source, name)}")
    asked = Asked(
        _class_list(source.classes),
        source.image_column,
        source.label_column,
        drawing.allow_missing,
        drawing.keep_test,
        drawing.draws,
        source.kind is not None,
    )
    try:
        listing = KINDS[kind].make(contents, asked)
    except ValueError as error:
        hint = "" if source.kind else f"; source.path was taken for {kind}, --source.kind names another"
        raise ValueError(f"{error}{hint}") from None
    if contents.folder.shown != contents_of(source.path).folder.shown:
        listing = replace(listing, notes=(*listing.notes, f"{contents.folder.shown} is read, which lies there alone"))
    return draw(listing, drawing).checked(drawing.allow_empty)


def _kind_at(source: Source) -> tuple[Contents, str]:
    """What is prepared, and its kind. Where one folder alone lies there, as archives unpack, it is looked into."""
    assert source.path is not None
    contents = contents_of(source.path)
    if source.kind is not None:
        return contents, source.kind
    chain = [contents, *inside_alone(source.path, contents)]
    for inside in chain:
        for name, layout in KINDS.items():
            if layout.there(inside):
                return inside, name
    for inside in reversed(chain):
        for name in UNSPLIT:
            there = KINDS[name].unsplit
            if there is not None and there(inside):
                return inside, name
    layouts = "; ".join(f"{name}: {layout.text}" for name, layout in KINDS.items() if name != "digits")
    holds = some(sorted(contents.names)) or "nothing"
    packed = [name for name in sorted(contents.names) if name.endswith(COMPRESSED)]
    hint = f"; {some(packed)} is compressed, unpack it first" if packed else ""
    raise ValueError(f"source.path {source.path} must hold one of ({layouts}), it holds {holds}{hint}")


def read_images(listing_kind: str, folder: Folder, rows: pa.Table) -> Iterator[bytes]:
    """The encoded images of some rows of a listing, in the rows' order."""
    return KINDS[listing_kind].read(folder, rows)


def _class_list(path: str | None) -> str | None:
    if path is None:
        return None
    parent, _, name = path.rpartition("/")
    try:
        return text_file(Folder(parent or ".").read(name), f"source.classes {path}")
    except OSError:
        raise ValueError(f"source.classes must be a file that can be read, got {path}") from None
