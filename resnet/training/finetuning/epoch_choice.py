"""The choice among the epochs of a training by a validation figure. Pure functions of the epochs' rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resnet.recipes.recipe_settings import Selection

if TYPE_CHECKING:
    from resnet.training.checkpoint import EpochRow


def figure(row: EpochRow, by: str) -> float | None:
    """The figure that judges an epoch, lower is better: with `last` its top-1 error. None: it was not evaluated."""
    value = row.top1_error if by == "last" else getattr(row, by)
    return None if value is None or math.isnan(value) else value


def chosen(rows: Sequence[EpochRow], selection: Selection) -> EpochRow:
    """The epoch whose network a training gives: the first of the best ones, or the last."""
    judged = [row for row in rows if figure(row, selection.by) is not None]
    if selection.by == "last" or not judged:
        return rows[-1]
    return min(judged, key=lambda row: (figure(row, selection.by), row.step))


def ends_early(rows: Sequence[EpochRow], selection: Selection) -> bool:
    """True if so many evaluations as patience says have passed since the best one."""
    if selection.patience is None or not rows:
        return False
    best = chosen(rows, selection)
    return sum(row.step > best.step and row.top1_error is not None for row in rows) >= selection.patience


def class_error(counts: Sequence[float]) -> float:
    """Mean over classes of the top-1 error, in percent. counts: (2 K,) wrong answers by class, then images by class;
    classes without images are left out."""
    half = len(counts) // 2
    errors = [wrong / images for wrong, images in zip(counts[:half], counts[half:], strict=True) if images]
    return 100 * sum(errors) / len(errors)
