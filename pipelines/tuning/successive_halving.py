"""Successive halving: trials behind their rung's best are stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Self

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from pipelines.tuning.trial_slots import LATE, EarlyStopping
from pipelines.tuning.tune_runner import name_of
from resnet.recipes.recipe import Recipe
from resnet.training.checkpoint import EpochRow

Stopped = Callable[[str, dict[str, Any]], None]  # a run's name and its last report


class Halving(ASHAScheduler):
    """Ray's asynchronous successive halving (Li et al. 2018) over runs by their names, with a memory.

    At each rung, `grace` steps times a power of `reduction`, a run goes on only if it is among the best 1/reduction of
    those that have come so far. known: rows of runs of an earlier call, so that a sweep that was killed goes on with
    the same rungs. A run that has reached `total` steps is never stopped.
    """

    def __init__(
        self, total: int, grace: int, reduction: float, known: Mapping[str, Sequence[EpochRow]], stopped: Stopped
    ) -> None:
        super().__init__(
            time_attr="step", max_t=max(total, grace), grace_period=grace, reduction_factor=reduction, brackets=1
        )
        self.total, self.stopped = total, stopped
        for run, rows in known.items():
            for row in rows:
                if row.top1_error is not None:
                    self._judge(run, row.step, row.top1_error)

    @classmethod
    def of(
        cls,
        asked: EarlyStopping,
        recipe: Recipe,
        examples: int,
        known: Mapping[str, Sequence[EpochRow]],
        stopped: Stopped,
    ) -> Self:
        """As asked, for trainings of a recipe on so many images."""
        total = recipe.total_steps(examples)
        grace = asked.grace_steps(recipe.steps_per_epoch(examples), LATE * total)
        return cls(total, grace, asked.reduction, known, stopped)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune keeps a pickle of its scheduler, which nobody reads; the runs' folders remember."""
        return {}

    def _judge(self, run: str, step: int, error: float) -> str:
        """Record an error on its rung; whether the run may go on. At the end there is nothing left to save."""
        if step >= self.total:
            return TrialScheduler.CONTINUE
        return self._brackets[0].on_result(SimpleNamespace(trial_id=run), step, -error)  # pyright: ignore

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called by Tune after each epoch of a trial."""
        decision = self._judge(name_of(trial), result["step"], result["top1_error"])
        if decision == TrialScheduler.STOP:
            self.stopped(name_of(trial), result)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Nothing: the last report has been judged already."""
