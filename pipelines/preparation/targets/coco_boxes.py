"""COCO's layout: annotations/instances_SPLIT*.json beside folders of images, or SPLIT/_annotations.coco.json."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.preparation.discovery.source_contents import Contents
from pipelines.preparation.listing import Asked, Listing, split_of
from pipelines.preparation.targets.box_listing import BoxedImage, Named, box_listing
from pipelines.shards.manifest import SplitName
from pipelines.storage import Folder
from resnet.frozen import sentence
from resnet.image_class import ImageClass

INSTANCES = "instances_"
INSIDE = "_annotations.coco.json"  # of an export beside its images


class CocoPart(BaseModel):
    """A part of a file of annotations; what else it has is passed over."""

    model_config = ConfigDict(allow_inf_nan=False)


class CocoImage(CocoPart):
    """An image; width, height in pixels."""

    id: int | str
    file_name: str
    width: float
    height: float


class CocoCategory(CocoPart):
    """A class."""

    id: int
    name: str


class CocoObject(CocoPart):
    """An object. bbox: left, top, width and height in pixels."""

    id: int | str | None = None
    image_id: int | str
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: bool | None = None


class CocoFile(CocoPart):
    """A file of annotations."""

    images: list[CocoImage]
    annotations: list[CocoObject]
    categories: list[CocoCategory]


def coco_files(folder: Folder) -> list[str]:
    """The files of annotations that lie there."""
    there = [f"annotations/{e.name}" for e in folder.entries("annotations") if e.name.startswith(INSTANCES)]
    if there:
        return [name for name in there if name.endswith(".json")]
    folders = [entry.name for entry in folder.entries() if entry.is_folder]
    return [f"{name}/{INSIDE}" for name in folders if any(e.name == INSIDE for e in folder.entries(name))]


def coco_boxes(contents: Contents, asked: Asked) -> Listing:
    """Images with boxes. ValueError: a file is missing or cannot be read, a class is unknown, a box lies outside."""
    folder, images = contents.folder, {}
    classes: list[tuple[int, str]] = []
    for path in coco_files(folder):
        split = split_of(path.replace("annotations/", "")) or "train"
        if split == "test" and not asked.keep_test:
            continue
        found = _read(folder, path)
        mine = sorted((category.id, category.name) for category in found.categories)
        if classes and mine != classes:
            raise ValueError(f"categories must be the same in all files of annotations, those of {path} differ")
        classes = mine
        images[split] = _images(folder, path, found, dict(mine))
    named = [ImageClass(id=i, wnid=name, name=name) for i, (_, name) in enumerate(classes)]
    return box_listing("coco", folder, named, images)


def _read(folder: Folder, path: str) -> CocoFile:
    try:
        return CocoFile.model_validate_json(folder.read(path))
    except ValidationError as error:
        raise ValueError(f"{path} must be JSON of COCO: {sentence(error)}") from None


def _images(folder: Folder, path: str, found: CocoFile, names: dict[int, str]) -> Sequence[BoxedImage]:
    known = {image.id for image in found.images}
    objects: dict[int | str, list[Named]] = defaultdict(list)
    for each in found.annotations:
        if each.category_id not in names:
            raise ValueError(
                f"category_id of annotation {each.id} in {path} must be one of its categories, got {each.category_id}"
            )
        if each.image_id not in known:
            raise ValueError(
                f"image_id of annotation {each.id} in {path} must be one of its images, got {each.image_id}"
            )
        left, top, width, height = each.bbox
        box = [left, top, left + width, top + height]
        objects[each.image_id].append(Named(names[each.category_id], box, bool(each.iscrowd)))
    place, sizes = _folder_of(folder, path, [image.file_name for image in found.images])
    return [
        BoxedImage(
            image.file_name,
            f"{place}{image.file_name}",
            sizes[image.file_name],
            image.width,
            image.height,
            objects[image.id],
        )
        for image in found.images
    ]


def _folder_of(folder: Folder, path: str, names: Sequence[str]) -> tuple[str, dict[str, int]]:
    """Where the images of a file of annotations lie, and their bytes. ValueError: one is missing."""
    stem = path.rpartition("/")[2].removeprefix(INSTANCES).removesuffix(".json")
    split: SplitName | None = split_of(path.replace("annotations/", ""))
    own = path.rpartition("/")[0] if path.endswith(INSIDE) else None
    places = [own] if own else [stem, f"images/{stem}", str(split), f"images/{split}", "images"]
    for place in places:
        sizes = {entry.name: entry.size for entry in folder.entries(place)}
        if sizes and names and names[0] in sizes:
            break
    else:
        first = names[0] if names else "none"
        raise ValueError(f"images of {path} must lie in {' or '.join(places)}, {first} does not")
    missing = [name for name in names if name not in sizes]
    if missing:
        raise ValueError(f"{place} must hold {missing[0]}, which {path} names")
    return f"{place}/", sizes
