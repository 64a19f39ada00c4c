"""The kinds of sources, told by their files: ILSVRC2012 archives, class folders, WebDataset, Parquet, CIFAR, digits;
with boxes or masks: Pascal VOC, COCO, folders of masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Annotated, Literal, NamedTuple

import pyarrow as pa
from pydantic import Field

from pipelines.preparation.discovery.source_contents import (
    COMPRESSED,
    Contents,
    contents_of,
    has_class_folders,
    has_splits,
    inside_alone,
)
from pipelines.preparation.discovery.split_folders import folders_by_split
from pipelines.preparation.formats import (
    cifar,
    class_folders,
    digits,
    flat_validation,
    ranged_reads,
    tar_archives,
    webdataset_labels,
)
from pipelines.preparation.formats.parquet_files import parquet, read_parquet
from pipelines.preparation.listing import (
    Asked,
    Listing,
    some,
    text_file,
)
from pipelines.preparation.splits.drawn_splits import Drawing, draw_splits
from pipelines.preparation.targets import coco_boxes, mask_folders, voc_boxes
from pipelines.storage import Folder
from resnet.frozen import FrozenSettings

Kind = Literal[
    "ilsvrc2012",
    "kaggle",
    "tiny-imagenet",
    "voc",
    "coco",
    "masks",
    "folders",
    "webdataset",
    "parquet",
    "cifar10",
    "cifar100",
    "digits",
]
Read = Callable[[Folder, pa.Table], Iterator[bytes]]


class Source(FrozenSettings):
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
            "(webdataset, parquet, voc, masks; ilsvrc2012: synsets in the order of ILSVRC2012_ID)"
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


# --- Which kind it is ---


class SourceKind(NamedTuple):
    """A kind of source. text: what its folder holds; there: whether it is this kind; read: images of rows, in order.

    unsplit: whether it is this kind without a split val, which is looked for after all others; None: never.
    """

    text: str
    there: Callable[[Contents], bool]
    make: Callable[[Contents, Asked], Listing]
    read: Read
    unsplit: Callable[[Contents], bool] | None = None


def _cifar(kind: str) -> SourceKind:
    def make(contents: Contents, asked: Asked) -> Listing:
        form = cifar.cifar_form(kind, contents.names)
        if form is None:
            raise ValueError(f"source.path {contents.folder.uri} must hold {KINDS[kind].text}")
        return cifar.cifar(contents.folder, form)

    first = [f.splits["train"][0] for f in cifar.FORMS if f.kind == kind]
    text = f"{kind}'s binary or python form ({' or '.join(first)}, ...)"
    return SourceKind(text, lambda c: cifar.cifar_form(kind, c.names) is not None, make, cifar.read_cifar)


def _kaggle(contents: Contents, asked: Asked) -> Listing:
    """ILSVRC/Data/CLS-LOC/ as Kaggle's archive has it, beside LOC_val_solution.csv."""
    names = flat_validation.names_of(contents.folder, "LOC_synset_mapping.txt")
    return class_folders.class_folders(contents.folder, asked, flat_validation.INSIDE_KAGGLE, names)


def _tiny_imagenet(contents: Contents, asked: Asked) -> Listing:
    """tiny-imagenet-200: train/WNID/images/, val/images/ and val/val_annotations.txt."""
    return class_folders.class_folders(
        contents.folder, asked, names=flat_validation.names_of(contents.folder, "words.txt")
    )


# In the order in which they are looked for.
KINDS: dict[str, SourceKind] = {
    "ilsvrc2012": SourceKind(
        f"{tar_archives.TRAIN}, {tar_archives.VAL} and {tar_archives.DEVKIT}.tar.gz",
        lambda c: tar_archives.TRAIN in c.names,
        lambda c, asked: tar_archives.ilsvrc2012(c.folder, asked.classes),
        ranged_reads.read_ranges,
    ),
    "cifar10": _cifar("cifar10"),
    "cifar100": _cifar("cifar100"),
    "kaggle": SourceKind(
        f"{flat_validation.INSIDE_KAGGLE}/ and {flat_validation.KAGGLE}",
        lambda c: {"ILSVRC", flat_validation.KAGGLE} <= c.names,
        _kaggle,
        ranged_reads.read_files,
    ),
    "tiny-imagenet": SourceKind(
        "wnids.txt, train/WNID/images/ and val/val_annotations.txt",
        lambda c: {"wnids.txt", "train", "val"} <= c.names,
        _tiny_imagenet,
        ranged_reads.read_files,
    ),
    "voc": SourceKind(
        "JPEGImages/ and Annotations/ with boxes, as Pascal VOC",
        lambda c: {voc_boxes.IMAGES, voc_boxes.ANNOTATIONS} <= c.names,
        voc_boxes.voc_boxes,
        ranged_reads.read_files,
    ),
    "coco": SourceKind(
        "annotations/instances_*.json with boxes, or SPLIT/_annotations.coco.json",
        lambda c: bool(coco_boxes.coco_files(c.folder)),
        coco_boxes.coco_boxes,
        ranged_reads.read_files,
    ),
    "masks": SourceKind(
        "images/ and masks/, alone or in train/ and val/, or Cityscapes' or Pascal VOC's folders of masks",
        mask_folders.has_masks,
        mask_folders.mask_folders,
        ranged_reads.read_files,
    ),
    "webdataset": SourceKind(
        "train-*.tar and val-*.tar",
        lambda c: has_splits(c, ".tar"),
        lambda c, asked: webdataset_labels.webdataset(c.folder, c.files(".tar"), asked),
        ranged_reads.read_ranges,
        lambda c: bool(c.files(".tar")),
    ),
    "parquet": SourceKind(
        "train-*.parquet and val-*.parquet with columns image and label",
        lambda c: has_splits(c, ".parquet"),
        lambda c, asked: parquet(c.folder, c.files(".parquet"), asked),
        read_parquet,
        lambda c: bool(c.files(".parquet")),
    ),
    "folders": SourceKind(
        "train/CLASS/ and val/CLASS/, or CLASS/ alone",
        lambda c: {"train", "val"} <= set(folders_by_split(c.names)),
        lambda c, asked: class_folders.class_folders(c.folder, asked),
        ranged_reads.read_files,
        lambda c: "train" in folders_by_split(c.names) or has_class_folders(c),
    ),
    "digits": SourceKind("nothing", lambda c: False, lambda c, asked: digits.digits(), digits.read_digits),
}
TAKE_A_CLASS_LIST = ("ilsvrc2012", "webdataset", "parquet", "voc", "masks")
TAKE_COLUMNS = ("webdataset", "parquet")
# Looked for first where there is no val: class folders may have a tar beside them, tars no class folders.
UNSPLIT = ("folders", "webdataset", "parquet")


def list_source(source: Source, drawing: Drawing | None = None) -> Listing:
    """Every image of a source. ValueError: it is not there, nothing that can be prepared, or not complete."""
    drawing = drawing or Drawing()
    if source.kind == "digits":
        if source != Source(kind="digits") or drawing.draws:
            raise ValueError("source.path, source.classes and shares must be left out with source.kind digits")
        return digits.digits()
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
    return draw_splits(listing, drawing).checked(drawing.allow_empty)


def _kind_at(source: Source) -> tuple[Contents, str]:
    """The path to prepare and its kind. Where one folder alone lies there, as archives unpack, it is looked into."""
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
