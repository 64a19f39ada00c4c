"""Parameter groups, the optimiser, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from resnet.recipes.settings import Optim, Schedule


class EpochErrors(NamedTuple):
    """What an epoch gave, in percent, and the number of steps done at its end: all that a schedule may look at."""

    steps: int
    train_error: float
    val_error: float


def parameter_groups(model: nn.Module, optim: Optim) -> list[dict[str, object]]:
    """Parameters with weight decay, and those without. The 2015 recipe decays all of them."""
    if optim.decay_norm_and_bias:
        return [{"params": list(model.parameters()), "weight_decay": optim.weight_decay}]
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]  # batch norm's gamma and beta, and biases
    return [
        {"params": matrices, "weight_decay": optim.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def optimizer(model: nn.Module, optim: Optim) -> torch.optim.SGD:
    """SGD with momentum. torch keeps lr outside the velocity, the authors' v := m v + lr g kept it inside.

    One kernel updates all parameters, on CUDA and on CPUs: there 1 to 20 % of a step of a CIFAR network. It trusts
    without a check that a gradient lies in memory as its parameter does; a test of the engine holds that under DDP.
    """
    groups = parameter_groups(model, optim)
    return torch.optim.SGD(groups, lr=optim.peak_lr, momentum=optim.momentum, nesterov=optim.nesterov, fused=True)


def begin_with_no_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Set the momentum to zero before the first step, for training with a loss scale.

    Fused SGD makes its buffers without a value in its first step. Where that step is skipped because a gradient
    overflowed, which is how a loss scale finds its size, the next one would go on with what was in that memory.
    """
    for group in optimizer.param_groups:
        for p in group["params"]:
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.preserve_format)


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
    """How often lr was reduced: each time the error had not fallen below its least for `patience` epochs."""
    least, waited, count = math.inf, 0, 0
    for error in errors:
        waited = 0 if error < least else waited + 1
        least = min(least, error)
        if waited == patience:
            count, waited = count + 1, 0
    return count
