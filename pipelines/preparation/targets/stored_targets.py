"""The target of an image as a shard keeps it: boxes as they were listed, a mask read and encoded again; both checked.

A target that contradicts its image ends the preparation: nobody can say which of the two is wrong.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipelines.preparation.targets.box_listing import EDGE
from pipelines.shards.manifest import Targets
from pipelines.storage import Folder
from resnet.dense.targets import IGNORED, Boxes, decoded_mask, encoded_mask


class TargetRule(NamedTuple):
    """The kind of the targets of a set, and the number of its classes."""

    kind: Targets
    classes: int


def stored_target(target: str, rule: TargetRule, source: Folder, size: tuple[int, int], key: str) -> bytes:
    """The target of an image as a shard has it. target: as listed; size: height and width of the upright image.

    ValueError: a box lies outside the image, whatever size its annotation says; the mask has another size than the
    image, or a value that is no class.
    """
    if rule.kind == "boxes":
        _require_inside(Boxes.decoded(target.encode()), size, key)
        return target.encode()
    try:
        mask = as_classes(decoded_mask(source.read(target)), rule.classes)
    except (OSError, ValueError) as error:
        raise ValueError(f"{target}: {error}") from None
    if mask.shape != size:
        wanted, got = (f"{width} x {height}" for height, width in (size, mask.shape))
        raise ValueError(f"the mask of {key} must have its image's size, {wanted}, got {got}")
    return encoded_mask(mask)


def _require_inside(boxes: Boxes, size: tuple[int, int], key: str) -> None:
    height, width = size
    wrong = boxes.boxes[(boxes.boxes[:, 2] > width + EDGE) | (boxes.boxes[:, 3] > height + EDGE)]
    if len(wrong):
        sides = " ".join(f"{side:g}" for side in wrong[0].tolist())
        raise ValueError(
            f"boxes of {key} must lie inside the {width} x {height} pixels that its image has, turned upright, got "
            f"{sides}: its annotation is of another size"
        )


def as_classes(mask: np.ndarray, classes: int) -> np.ndarray:
    """Ids of classes. A mask of 0 and 255 alone, of two classes, has its second one where it is 255.

    ValueError: a value is no class.
    """
    values = np.unique(mask)
    if classes == 2 and set(values.tolist()) <= {0, IGNORED}:
        return (mask == IGNORED).astype(np.uint8)
    wrong = values[(values >= classes) & (values != IGNORED)]
    if len(wrong):
        raise ValueError(f"values of a mask must be 0 to {classes - 1}, or {IGNORED} for none, got {wrong[0]}")
    return mask
