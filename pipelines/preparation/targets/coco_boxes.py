"""COCO's layout: annotations/instances_SPLIT*.json beside folders of images, or SPLIT/_annotations.coco.json."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from pipelines.preparation.discovery.source_contents import Contents
from pipelines.preparation.listing import Asked, Listing, split_of
from pipelines.preparation.targets.box_listing import BoxedImage, Named, box_listing
from pipelines.shards.manifest import SplitName
from pipelines.storage import Folder
from resnet.image_class import ImageClass

INSTANCES = "instances_"
INSIDE = "_annotations.coco.json"  # of an export beside its images


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
        mine = sorted((int(category["id"]), str(category["name"])) for category in found["categories"])
        if classes and mine != classes:
            raise ValueError(f"categories must be the same in all files of annotations, those of {path} differ")
        classes = mine
        images[split] = _images(folder, path, found, dict(mine))
    named = [ImageClass(id=i, wnid=name, name=name) for i, (_, name) in enumerate(classes)]
    return box_listing("coco", folder, named, images)


def _read(folder: Folder, path: str) -> dict[str, Any]:
    try:
        found = json.loads(folder.read(path))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON of COCO: {error}") from None
    missing = [field for field in ("images", "annotations", "categories") if field not in found]
    if missing:
        raise ValueError(f"{path} must be JSON of COCO, it has no {missing[0]}")
    return found


def _images(folder: Folder, path: str, found: dict[str, Any], names: dict[int, str]) -> Sequence[BoxedImage]:
    objects: dict[int, list[Named]] = defaultdict(list)
    for each in found["annotations"]:
        if each["category_id"] not in names:
            raise ValueError(
                f"category_id of annotation {each.get('id')} in {path} must be one of its categories, "
                f"got {each['category_id']}"
            )
        left, top, width, height = each["bbox"]
        box = [left, top, left + width, top + height]
        objects[each["image_id"]].append(Named(names[each["category_id"]], box, bool(each.get("iscrowd"))))
    place, sizes = _folder_of(folder, path, [str(image["file_name"]) for image in found["images"]])
    return [
        BoxedImage(
            str(image["file_name"]),
            f"{place}{image['file_name']}",
            sizes[str(image["file_name"])],
            image["width"],
            image["height"],
            objects[image["id"]],
        )
        for image in found["images"]
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
