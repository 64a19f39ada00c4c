"""The target of an image as a shard keeps it: boxes as they were listed, a mask read, checked and encoded again.

A target that contradicts its image ends the preparation: nobody can say which of the two is wrong.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipelines.shards.manifest import Targets
from pipelines.storage import Folder
from resnet.dense.targets import IGNORED, decoded_mask, encoded_mask
from resnet.images.decode import size_of


class TargetRule(NamedTuple):
    """The kind of the targets of a set, and the number of its classes."""

    kind: Targets
    classes: int


def stored_target(target: str, rule: TargetRule, source: Folder, image: bytes, key: str) -> bytes:
    """The target of an image as a shard has it. target: as listed; image: as it is stored.

    ValueError: the mask has another size than the image, or a value that is no class.
    """
    if rule.kind == "boxes":
        return target.encode()
    try:
        mask = as_classes(decoded_mask(source.read(target)), rule.classes)
    except (OSError, ValueError) as error:
        raise ValueError(f"{target}: {error}") from None
    if mask.shape != (size := size_of(image)):
        wanted, got = (f"{width} x {height}" for height, width in (size, mask.shape))
        raise ValueError(f"the mask of {key} must have its image's size, {wanted}, got {got}")
    return encoded_mask(mask)


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
