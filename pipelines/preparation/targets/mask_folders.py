"""Images with a mask each: folders of images and of masks, Cityscapes' layout, and Pascal VOC's.

A mask has the name of its image, but for suffixes. Its values are ids of classes, and 255 is ignored; a mask of 0 and
255 alone has two classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.preparation.discovery.source_contents import Contents
from pipelines.preparation.listing import Asked, Listing, in_order, listed, read_class_list, some, split_of
from pipelines.preparation.targets.voc_boxes import SUFFIXES, voc_splits
from pipelines.shards.manifest import SplitName
from pipelines.storage import READERS, Folder
from resnet.dense.targets import IGNORED, decoded_mask
from resnet.image_class import ImageClass

IMAGES = ("image", "images", "img", "imgs", "leftImg8bit", "JPEGImages")
MASKS = ("mask", "masks", "label", "labels", "annotation", "annotations", "gtFine", "SegmentationClass")
IMAGE_ENDS = ("_leftImg8bit",)
MASK_ENDS = ("_gtFine_labelTrainIds", "_mask", "_label", "_labels")
OTHER_MASKS = ("_color", "_instanceIds", "_polygons", "_labelIds")  # of Cityscapes, beside those that are read
BINARY = {0, IGNORED}


class MaskPair(NamedTuple):
    """An image and its mask. key: unique; image, mask: paths; size: bytes of the image."""

    key: str
    image: str
    mask: str
    size: int


def mask_place(folder: Folder, inside: str = "") -> tuple[str, str] | None:
    """The folders of images and of masks that lie in a folder, or None."""
    there = {entry.name for entry in folder.entries(inside) if entry.is_folder}
    images, masks = ([name for name in names if name in there] for names in (IMAGES, MASKS))
    before = f"{inside}/" if inside else ""
    return (f"{before}{images[0]}", f"{before}{masks[0]}") if images and masks else None


def has_masks(contents: Contents) -> bool:
    """True if there are folders of images and masks, in the folder or in each split's; VOC's boxes are another kind."""
    if "Annotations" in contents.names:
        return False
    return bool(contents.names & set(IMAGES) and contents.names & set(MASKS)) or bool(_split_folders(contents.folder))


def _split_folders(folder: Folder) -> dict[SplitName, tuple[str, str]]:
    """train/images and train/masks, ..."""
    found: dict[SplitName, tuple[str, str]] = {}
    for entry in folder.entries():
        if entry.is_folder and (split := split_of(entry.name)) and (place := mask_place(folder, entry.name)):
            found[split] = place
    return found


def mask_folders(contents: Contents, asked: Asked) -> Listing:
    """Images with masks. ValueError: an image has no mask or a mask no image, or a value is of no class."""
    folder, own = contents.folder, mask_place(contents.folder)
    pairs: dict[SplitName, list[MaskPair]]
    if own is None:
        places = _split_folders(folder)
        pairs = {split: _pairs(folder, *place) for split, place in places.items() if split != "test" or asked.keep_test}
        if not pairs:
            raise ValueError(
                f"source.path {folder.uri} must hold a folder of images ({', '.join(IMAGES)}) and one of masks "
                f"({', '.join(MASKS)}), alone or in train and val"
            )
    elif own[1] == "SegmentationClass":
        every = _pairs(folder, *own)
        named = {pair.key: pair for pair in every}
        splits = voc_splits(folder, "Segmentation", sorted(named), asked)
        pairs = {split: _of_names(named, names, own[1]) for split, names in splits.items()}
    else:
        pairs = _by_subfolder(_pairs(folder, *own), asked)
    return _listing(folder, asked, pairs)


def _of_names(named: Mapping[str, MaskPair], names: Sequence[str], masks: str) -> list[MaskPair]:
    missing = [name for name in names if name not in named]
    if missing:
        raise ValueError(f"{masks} must hold a mask of {missing[0]}, which its splits name")
    return [named[name] for name in names]


def _by_subfolder(pairs: Sequence[MaskPair], asked: Asked) -> dict[SplitName, list[MaskPair]]:
    """Splits by folders below those of images, as Cityscapes has them; without such folders all are train's."""
    found: dict[SplitName, list[MaskPair]] = {}
    for pair in pairs:
        split = split_of(pair.key.rpartition("/")[0]) or "train"
        if split != "test" or asked.keep_test:
            found.setdefault(split, []).append(pair)
    return found


def _pairs(folder: Folder, images: str, masks: str) -> list[MaskPair]:
    """All images below a folder with their masks below another, by their names. A folder without masks is VOC's way
    to leave images without one out; elsewhere each image must have one."""
    there = dict(_files(folder, masks))
    mask_of = {_stem(path, MASK_ENDS): path for path in there if not _stem(path, ()).endswith(OTHER_MASKS)}
    found, without = [], []
    for path, size in _files(folder, images):
        stem = _stem(path, IMAGE_ENDS)
        if stem in mask_of:
            found.append(MaskPair(stem, f"{images}/{path}", f"{masks}/{mask_of[stem]}", size))
        else:
            without.append(path)
    if without and masks != "SegmentationClass":
        raise ValueError(f"each image of {images} must have a mask in {masks}, {some(without)} has none")
    if not found:
        raise ValueError(f"{images} must hold images with masks in {masks}, got none")
    return found


def _files(folder: Folder, inside: str) -> Iterator[tuple[str, int]]:
    """Images below a folder, by their path in it, in order, with their bytes."""
    for entry in folder.entries(inside):
        if entry.is_folder:
            yield from ((f"{entry.name}/{path}", size) for path, size in _files(folder, f"{inside}/{entry.name}"))
        elif entry.name.lower().endswith(SUFFIXES):
            yield entry.name, entry.size


def _stem(path: str, ends: Sequence[str]) -> str:
    stem = path.rpartition(".")[0]
    return next((stem.removesuffix(end) for end in ends if stem.endswith(end)), stem)


def _listing(folder: Folder, asked: Asked, pairs: Mapping[SplitName, Sequence[MaskPair]]) -> Listing:
    values: set[int] = set()
    if asked.classes is None:
        values = _values(folder, [pair.mask for mine in pairs.values() for pair in mine])
    classes = _classes(asked.classes, values)
    splits: dict[SplitName, pa.Table] = {split: _table(mine) for split, mine in pairs.items()}
    return Listing("masks", folder, classes, splits, targets="masks")


def _table(pairs: Sequence[MaskPair]) -> pa.Table:
    """The target of a row is the path of its mask, which the writer reads."""
    rows = [(pair.key, 0, pair.image, 0, pair.size) for pair in pairs]
    column = pa.array([pair.mask for pair in pairs], pa.string())
    return in_order([listed(rows).append_column("target", column)])


def _values(folder: Folder, masks: Sequence[str]) -> set[int]:
    """All values of all masks. ValueError names a mask that cannot be read."""

    def values(path: str) -> set[int]:
        try:
            return set(np.unique(decoded_mask(folder.read(path))).tolist())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    with ThreadPoolExecutor(READERS[folder.is_local]) as pool:
        return set().union(*pool.map(values, masks))


def _classes(text: str | None, values: set[int]) -> tuple[ImageClass, ...]:
    """Classes of a list, or as many as there are values."""
    if text is not None:
        wnids, names = read_class_list(text)
        return tuple(ImageClass(id=i, wnid=w, name=n) for i, (w, n) in enumerate(zip(wnids, names, strict=True)))
    highest = 1 if values <= BINARY else max(values - {IGNORED}, default=0)
    return tuple(ImageClass(id=i, wnid=f"class-{i}", name=f"class {i}") for i in range(highest + 1))
