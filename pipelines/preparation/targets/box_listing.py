"""Images with boxes as a listing: each box checked against its image and the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from pipelines.preparation.listing import Listing, in_order, listed, some
from pipelines.shards.manifest import SplitName, Unusual
from pipelines.storage import Folder
from resnet.dense.targets import Boxes
from resnet.image_class import ImageClass

EDGE = 1.0  # pixels that a box may reach over the edge: VOC counts from 1, others from 0
NAMED = 20
FLAT = "objects without area, which are left out"


class Named(NamedTuple):
    """An object: name of its class, left, top, right and bottom in pixels; ignored: difficult, or a crowd."""

    name: str
    box: list[float]
    ignored: bool = False


class BoxedImage(NamedTuple):
    """An image with its objects. key: unique; path: in the source; size: bytes; width, height: as annotated."""

    key: str
    path: str
    size: int
    width: float
    height: float
    objects: Sequence[Named]


def box_listing(
    kind: str, folder: Folder, classes: Sequence[ImageClass], images: Mapping[SplitName, Sequence[BoxedImage]]
) -> Listing:
    """The listing of such images. ValueError: no object at all, an unknown class, a box outside its image."""
    ids, flat = {c.wnid: c.id for c in classes}, []
    splits: dict[SplitName, pa.Table] = {split: _table(mine, ids, flat) for split, mine in images.items()}
    if not any(image.objects for mine in images.values() for image in mine):
        raise ValueError(f"source.path {folder.uri} must hold images with boxes, none of its images has one")
    dropped = (Unusual(what=FLAT, count=len(flat), keys=tuple(flat[:NAMED])),) if flat else ()
    notes = (f"{len(flat)} {FLAT}: {some(flat)}",) if flat else ()
    return Listing(kind, folder, tuple(classes), splits, converted=dropped, notes=notes, targets="boxes")


def _table(images: Sequence[BoxedImage], ids: Mapping[str, int], flat: list[str]) -> pa.Table:
    rows = [(image.key, 0, image.path, 0, image.size) for image in images]
    column = pa.array([_boxes(image, ids, flat).encoded().decode() for image in images], pa.string())
    return in_order([listed(rows).append_column("target", column)])


def _boxes(image: BoxedImage, ids: Mapping[str, int], flat: list[str]) -> Boxes:
    """The boxes of an image. flat: gets the keys of images with an object without area."""
    boxes, labels, ignored = [], [], []
    for name, box, is_ignored in image.objects:
        if name not in ids:
            raise ValueError(f"class of an object in {image.key} must be one of {some(list(ids), 5)}, got {name}")
        left, top, right, bottom = box
        # said so that what is no number does not fit either
        fits = -EDGE <= left <= right <= image.width + EDGE and -EDGE <= top <= bottom <= image.height + EDGE
        if not fits:
            sides = " ".join(f"{side:g}" for side in box)
            raise ValueError(
                f"boxes of {image.key} must lie inside its {image.width:g} x {image.height:g} pixels, left before "
                f"right and top before bottom, got {sides}"
            )
        inside = [max(0.0, left), max(0.0, top), min(right, image.width), min(bottom, image.height)]
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            flat.append(image.key)
            continue
        boxes.append(inside)
        labels.append(ids[name])
        ignored.append(is_ignored)
    return Boxes.of(boxes, labels, ignored)
