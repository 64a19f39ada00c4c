"""Captured steps of a training: taken where they are possible, and only after a trial from a copy of its state."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.stream.in_memory import Draws
from pipelines.training.rank_data import RankData
from resnet.training.devices.captured_step import CapturedStep, CudaGraph
from resnet.training.devices.step_trial import TRIAL, State, addresses, trial_of_steps
from resnet.training.optimizer import begin_with_no_momentum

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepParts:
    """A training as far as its steps can be captured.

    plain: a step as it is, by batch, number and lr; by_draws: the same with the draws of a batch and the average's
    share on the device, and lr in the optimiser; share: of a step, by its number; state: all that a step changes.
    """

    optimizer: torch.optim.Optimizer
    plain: Callable[[Draws, int, float], Tensor]
    by_draws: Callable[[Tensor, Tensor], Tensor]
    share: Callable[[int], float]
    state: Callable[[], State]


class ReplayedSteps:
    """The steps of a training on one GPU as replays of one that was recorded."""

    def __init__(self, task: RankData, parts: StepParts, example: Draws) -> None:
        self._task, self._parts = task, parts
        self._step = CapturedStep(parts.by_draws, parts.optimizer, task.drawn(example), CudaGraph(task.device))
        self.record = self._step.record
        self._places = addresses(parts.state())

    def __call__(self, batch: Draws, step: int, lr: float) -> Tensor:
        """(3,) sums of a step: loss, top-1 errors, examples."""
        if step % self._task.order.steps_per_epoch == 0:
            assert addresses(self._parts.state()) == self._places, "what a captured step changes stays where it is"
        return self._step(self._task.drawn(batch), lr, self._parts.share(step))


def replayed_steps(task: RankData, parts: StepParts) -> ReplayedSteps | None:
    """Captured steps, where scaling.capture allows it and they do what steps do. The trained state is as before.

    ValueError: they must be captured, and cannot.
    """
    wanted, why = task.run.scaling.capture, task.uncaptured
    if wanted == "off" or (wanted == "auto" and why is not None):
        return None
    found = why or _tried(task, parts)
    if isinstance(found, ReplayedSteps):
        return found
    if wanted == "on":
        raise ValueError(f"scaling.capture must be auto or off here, got on: {found}")
    log.warning("the steps are not captured: %s", found)
    return None


def _tried(task: RankData, parts: StepParts) -> ReplayedSteps | str:
    """Captured steps, or why they are not to be trusted."""
    optimizer, peak = parts.optimizer, task.run.recipe.optim.peak_lr
    began = bool(optimizer.state)
    if not began and task.run.recipe.optim.momentum:  # a first step would be recorded as one without momentum
        begin_with_no_momentum(optimizer)
    batches = _first_batches(task, len(TRIAL))
    replayed = ReplayedSteps(task, parts, batches[0])

    def steps(way: Callable[[Draws, int, float], Tensor]) -> Callable[[int], Tensor]:
        return lambda number: way(batches[number], TRIAL[number][0], TRIAL[number][1] * peak)

    why = trial_of_steps(replayed.record, steps(parts.plain), steps(replayed), parts.state(), len(TRIAL))
    optimizer.zero_grad(set_to_none=True)
    if why is None:
        return replayed
    if not began:
        optimizer.state.clear()
    return why


def _first_batches(task: RankData, count: int) -> list[Draws]:
    """The first batches of the training; a small set has them in several epochs."""
    epochs = (task.training(epoch, 0) for epoch in itertools.count())
    batches = (batch for epoch in epochs for batch in epoch if isinstance(batch, Draws))
    return list(itertools.islice(batches, count))
