"""Small sets with boxes and masks as their users lay them out, and small runs on them."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.dense.dense_run import DenseRun, DetectorRun, SegmenterRun
from pipelines.shards.manifest import read_manifest

SIDE = 64
OBJECT = """<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>
<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""


def drawn(seed: int) -> tuple[np.ndarray, list[int], str]:
    """A grey image with a light or a dark rectangle: the image, its box, its class."""
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 110, (SIDE, SIDE, 3)).astype(np.uint8)
    left, top = rng.integers(2, 24, 2).tolist()
    width, height = rng.integers(20, 36, 2).tolist()
    box, name = [left, top, left + width, top + height], ("light", "dark")[seed % 2]
    image[box[1] : box[3], box[0] : box[2]] = 240 if name == "light" else 10
    return image, box, name


def annotation(objects: list[tuple[str, list[int]]], width: int = SIDE, height: int = SIDE) -> str:
    """Pascal VOC's XML."""
    inner = "".join(OBJECT.format(name=name, box=box) for name, box in objects)
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{inner}</annotation>"


def voc_set(root: Path, train: int, val: int) -> None:
    """A set in Pascal VOC's layout."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    names = [f"image{i:02d}" for i in range(train + val)]
    for seed, name in enumerate(names):
        image, box, label = drawn(seed)
        Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        (root / "Annotations" / f"{name}.xml").write_text(annotation([(label, box)]))
    (root / "ImageSets/Main/train.txt").write_text("\n".join(names[:train]))
    (root / "ImageSets/Main/val.txt").write_text("\n".join(names[train:]) + "\n")


def mask_set(root: Path, train: int, val: int) -> None:
    """Folders of images and masks: 255 where the rectangle is."""
    for seed in range(train + val):
        image, box, _ = drawn(seed)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[box[1] : box[3], box[0] : box[2]] = 255
        for folder, pixels in (("images", image), ("masks", mask)):
            place = root / ("train" if seed < train else "val") / folder
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{seed:02d}.png")


SMALL: dict[str, Any] = {
    "network": "imagenet-resnet18",
    "size": SIDE,
    "norm": "frozen",
    "trained_stages": 2,
    "clip": 1.0,
    "optim": {"lr": 0.01, "batch_size": 4},
    "epochs": None,
}


def small_run(shards: str | Path, storage: Path, steps: int = 5, **changes: Any) -> DenseRun:
    """A run of a few steps, three of which are an epoch, of the task that the shards are for."""
    boxes = read_manifest(str(shards)).targets == "boxes"
    own: dict[str, Any] = {"width": 16, "regions": 16, "anchor": 8}
    if not boxes:
        own = {"auxiliary": 0.0, "scales": (0.9, 1.1)}
    fields: dict[str, Any] = {
        "recipe": SMALL | own | {"steps": steps},
        "data": {"path": str(shards)},
        "storage": str(storage),
        "scaling": {"workers": 1},
        "checkpoints": {"every_steps": 1, "keep": 9},
    }
    return (DetectorRun if boxes else SegmenterRun)(**(fields | changes))
