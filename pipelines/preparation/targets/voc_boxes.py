"""Pascal VOC's layout: Annotations/NAME.xml beside JPEGImages/NAME.jpg, splits in ImageSets/Main/*.txt."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from pipelines.preparation.discovery.source_contents import Contents
from pipelines.preparation.listing import Asked, Listing, classes_of, read_class_list, text_file
from pipelines.preparation.targets.box_listing import BoxedImage, Named, box_listing
from pipelines.shards.manifest import ALL_SPLITS, SplitName
from pipelines.storage import READERS, Folder

IMAGES, ANNOTATIONS, SETS = "JPEGImages", "Annotations", "ImageSets"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MOST_BYTES = 2**22  # of an annotation: hundreds of objects are 100 kB


class _Annotation(NamedTuple):
    width: float
    height: float
    objects: tuple[Named, ...]


def voc_boxes(contents: Contents, asked: Asked) -> Listing:
    """Images with boxes. ValueError: a file is missing or cannot be read, a class is unknown, a box lies outside."""
    folder = contents.folder
    sizes = {entry.name: entry.size for entry in folder.entries(IMAGES) if entry.name.lower().endswith(SUFFIXES)}
    files = {name.rpartition(".")[0]: name for name in sizes}
    noted = {e.name.removesuffix(".xml") for e in folder.entries(ANNOTATIONS) if e.name.endswith(".xml")}
    splits = voc_splits(folder, "Main", sorted(noted & set(files)), asked)
    names = sorted({name for split in splits.values() for name in split})
    for name in names:
        if name not in files or name not in noted:
            what = f"{IMAGES}/{name}.jpg" if name not in files else f"{ANNOTATIONS}/{name}.xml"
            raise ValueError(f"source.path {folder.uri} must hold {what}, which its splits name")
    with ThreadPoolExecutor(READERS[folder.is_local]) as pool:
        found = dict(zip(names, pool.map(lambda name: _read(folder, name), names), strict=True))
    known = read_class_list(asked.classes) if asked.classes else None
    wnids = known[0] if known else sorted({o.name for annotation in found.values() for o in annotation.objects})
    classes = classes_of(wnids, known[1] if known else None)
    images: dict[SplitName, list[BoxedImage]] = {
        split: [BoxedImage(name, f"{IMAGES}/{files[name]}", sizes[files[name]], *found[name]) for name in split_names]
        for split, split_names in splits.items()
    }
    return box_listing("voc", folder, classes, images)


def voc_splits(folder: Folder, kind: str, every: Sequence[str], asked: Asked) -> dict[SplitName, list[str]]:
    """Names of images by split, from ImageSets/KIND/*.txt; without such files all are train's."""
    there = {entry.name for entry in folder.entries(f"{SETS}/{kind}")}
    found: dict[SplitName, list[str]] = {}
    for split in ALL_SPLITS:
        if f"{split}.txt" in there and (split != "test" or asked.keep_test):
            path = f"{SETS}/{kind}/{split}.txt"
            lines = text_file(folder.read(path), path).splitlines()
            found[split] = [line.split()[0] for line in lines if line.strip()]
    return found or {"train": list(every)}


def _read(folder: Folder, name: str) -> _Annotation:
    """An annotation. ValueError names its file."""
    path = f"{ANNOTATIONS}/{name}.xml"
    data = folder.read(path)
    if len(data) > MOST_BYTES or b"<!ENTITY" in data:
        raise ValueError(f"{path} must be an annotation of Pascal VOC, got {len(data):,} bytes or entities")
    try:
        root = ElementTree.fromstring(data)
        width, height = (float(_text(root, f"size/{side}")) for side in ("width", "height"))
        objects = tuple(_object(each) for each in root.iter("object"))
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{path} must be an annotation of Pascal VOC: {error}") from None
    return _Annotation(width, height, objects)


def _object(found: ElementTree.Element) -> Named:
    box = [float(_text(found, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
    return Named(_text(found, "name"), box, (found.findtext("difficult") or "0").strip() == "1")


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None or not text.strip():
        raise ValueError(f"{element.tag} has no {path}")
    return text.strip()
