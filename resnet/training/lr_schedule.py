"""The learning rate of a step, a pure function of the schedule and the errors so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from resnet.recipes.recipe_settings import Optim, Schedule


class EpochErrors(NamedTuple):
    """Errors of an epoch in percent, and the number of steps done at its end: all that a schedule may look at."""

    steps: int
    train_error: float
    val_error: float


def lr_at(step: int, total: int, optim: Optim, schedule: Schedule, history: Sequence[EpochErrors] = ()) -> float:
    """Learning rate of a step. total: steps of the training; history: the epochs that ended at or before the step."""
    known = [epoch for epoch in history if epoch.steps <= step]
    # Section 4.2: 110 layers start with 0.01 until the training error is below 80 %, about 400 iterations.
    if schedule.gentle_lr and all(epoch.train_error >= (schedule.gentle_error or 0) for epoch in known):
        return schedule.gentle_lr
    warmup = schedule.warmup * total
    if step < warmup:
        return optim.peak_lr * (step + 1) / warmup
    if schedule.kind == "cosine":
        return optim.peak_lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
    assert schedule.gamma is not None  # the recipe's validator
    if schedule.kind == "step":
        passed = sum(step >= round(milestone * total) for milestone in schedule.milestones)
        return optim.peak_lr * schedule.gamma**passed
    assert schedule.patience is not None
    return optim.peak_lr * schedule.gamma ** reductions([epoch.val_error for epoch in known], schedule.patience)


def reductions(errors: Sequence[float], patience: int) -> int:
    """Number of reductions of lr: one each time the error had not fallen below its least for `patience` epochs."""
    least, waited, count = math.inf, 0, 0
    for error in errors:
        waited = 0 if error < least else waited + 1
        least = min(least, error)
        if waited == patience:
            count, waited = count + 1, 0
    return count
