"""Some real images as they are encoded, to verify an exported model: from shards, a folder, or the embedded digits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from pipelines.file_names import Output
from pipelines.shards.manifest import MANIFEST
from pipelines.storage import Folder
from resnet.frozen import FrozenSettings
from resnet.images.checks import image_kinds

SUFFIXES = tuple(f".{suffix}" for suffix in image_kinds.SUFFIXES)


class Export(FrozenSettings):
    """Options of jobs/export_model.py."""

    out: Annotated[Output, Field(description="folder to write; it must not exist yet")]
    formats: Annotated[
        tuple[Literal["safetensors", "onnx", "pt2", "int8"], ...],
        Field(min_length=1, description="beside the checkpoint, which is safetensors"),
    ] = ("safetensors", "onnx", "pt2")
    images: Annotated[str | None, Field(description="folder or URI of images or shards. None: embedded digits")] = None
    count: Annotated[int, Field(ge=2, le=10_000, description="images that it is verified on, spread evenly")] = 128
    network: Annotated[str | None, Field(description="what a file of weights holds: imagenet-resnet50-B-v1.5")] = None
    preprocess: Annotated[
        str | None,
        Field(description="RESIZE[,CROP[,bicubic]] for a file of weights that does not say, e.g. 232; else its own"),
    ] = None

    @model_validator(mode="after")
    def _new(self) -> Self:
        if Path(self.out).exists():
            raise ValueError(f"out must not exist yet, got {self.out}")
        return self


def sample_images(images: str | None, count: int) -> list[bytes]:
    """At most `count` images, spread evenly: a split's val, else train, of shards; files of a folder or URI with the
    folders in it; None: the digits that are held out. ValueError: there are none."""
    if images is None:
        return _digits(count)
    folder = Folder(images)
    if any(entry.name == MANIFEST for entry in folder.entries()):
        return _of_shards(images, count)
    names = [name for name in folder.files() if name.lower().endswith(SUFFIXES)]
    if not names:
        raise ValueError(f"images must hold files that end in {', '.join(SUFFIXES)}, got none in {images}")
    return [folder.read(names[i]) for i in _spread(len(names), count)]


def _spread(length: int, count: int) -> list[int]:
    """Places in a list, as far from each other as they can be."""
    return np.unique(np.linspace(0, length - 1, min(length, count)).round().astype(int)).tolist()


def _of_shards(uri: str, count: int) -> list[bytes]:
    from pipelines.shards.row_groups import open_split

    split = open_split(uri, "val")[1]
    if not split.rows:
        split = open_split(uri, "train")[1]
    ends = np.cumsum(split.rows)
    found: list[bytes] = []
    group, rows = -1, []
    for place in _spread(int(ends[-1]), count):
        wanted = int(np.searchsorted(ends, place, side="right"))
        if wanted != group:
            group, rows = wanted, split.read(wanted, ("image",))["image"]
        found.append(rows[place - int(ends[group]) + len(rows)])
    return found


def _digits(count: int) -> list[bytes]:
    from pipelines.preparation.formats.digits import digits, read_digits

    listing = digits()
    rows = listing.splits["val"]
    return list(read_digits(listing.source, rows.take(_spread(len(rows), count))))
