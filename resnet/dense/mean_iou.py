"""Mean intersection over union of class masks (Everingham et al. 2010), from a table of counts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from resnet.dense.targets import IGNORED


class MaskFigures(NamedTuple):
    """In percent. mean_iou: over the classes that are there; accuracy: of the pixels; by_class: IoU, NaN if absent."""

    mean_iou: float
    accuracy: float
    by_class: tuple[float, ...]


def confusion(found: np.ndarray, wanted: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels by (wanted, found) class, (K, K) int64. Ignored pixels do not count. ValueError: other sizes."""
    if found.shape != wanted.shape:
        raise ValueError(f"masks must have one size, got {found.shape} and {wanted.shape}")
    counts = wanted != IGNORED
    pairs = wanted[counts].astype(np.int64) * num_classes + found[counts]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def mask_figures(table: np.ndarray) -> MaskFigures:
    """Figures of a table of counts, over any number of images."""
    right = np.diag(table).astype(float)
    union = table.sum(0) + table.sum(1) - right
    iou = np.divide(100 * right, union, out=np.full(len(right), np.nan), where=union > 0)
    there = table.sum(1) > 0
    mean = float(np.nanmean(iou[there])) if there.any() else float("nan")
    accuracy = float(100 * right.sum() / max(1, table.sum()))
    return MaskFigures(mean, accuracy, tuple(iou.tolist()))
