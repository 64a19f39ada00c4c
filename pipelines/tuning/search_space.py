"""The settings that a search varies, and what a trial of it found."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from pipelines.run import Run
from pipelines.tuning.trial_slots import EarlyStopping
from resnet.frozen import Frozen

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

CONTINUES = "continues"  # user attribute of a trial: the number of the one that a killed call left unfinished


class Search(EarlyStopping):
    """The space and the method of a search."""

    scheduler: Annotated[
        Literal["none", "short-first", "asha", "pbt"],
        Field(description="short-first: each setting in a short training with the whole schedule in it, the best of "
              "them then in full; asha: stop early what is not among the best at each rung; pbt: a population that "
              "trains at once, whose worst quarter takes over weights and settings of the best, changed a little"),
    ] = "short-first"  # fmt: skip
    short: Annotated[
        float, Field(gt=0, lt=1, description="short-first: length of the short trainings, as a part of the full one")
    ] = 0.25
    finalists: Annotated[
        int | None, Field(ge=1, description="short-first: settings that are trained in full. None: a quarter of them")
    ] = None
    sampler: Annotated[
        Literal["tpe", "random", "grid"], Field(description="what proposes; grid: points x points settings")
    ] = "tpe"
    trials: Annotated[int, Field(ge=1, description="trainings in all; members of the population with pbt")] = 12
    points: Annotated[int, Field(ge=2, description="sampler grid: values of lr, and of weight decay")] = 3
    lr: Annotated[tuple[float, float], Field(description="range, logarithmic")] = (0.01, 1.0)
    weight_decay: Annotated[tuple[float, float], Field(description="range, logarithmic")] = (1e-5, 1e-3)

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        for field in ("lr", "weight_decay"):
            low, high = getattr(self, field)
            if not 0 < low < high:
                raise ValueError(f"{field} must be two positive numbers, the smaller first, got {low:g} {high:g}")
        if self.scheduler == "pbt" and self.sampler != "tpe":
            raise ValueError(f"sampler has no effect with scheduler pbt, got {self.sampler}")
        for field in ("short", "finalists"):
            value, usual = getattr(self, field), Search.model_fields[field].default
            if value != usual and self.scheduler != "short-first":
                raise ValueError(
                    f"{field} has an effect with scheduler short-first only, got {value:g} with {self.scheduler}"
                )
        if (self.finalists or 1) > self.count:
            raise ValueError(f"finalists must be at most the {self.count} settings, got {self.finalists}")
        field, sampler = ("trials", "grid") if self.sampler == "grid" else ("points", self.sampler)
        if (value := getattr(self, field)) != Search.model_fields[field].default:
            raise ValueError(f"{field} has no effect with sampler {sampler}, got {value}")
        return self

    @property
    def count(self) -> int:
        """Trainings that are started."""
        return self.points**2 if self.sampler == "grid" else self.trials

    @property
    def finalist_count(self) -> int:
        """Settings that scheduler short-first trains in full."""
        return self.finalists or max(1, self.count // 4)

    def grid(self) -> list[dict[str, float]]:
        """The settings of sampler grid."""
        lrs, decays = (np.geomspace(*ends, self.points).tolist() for ends in (self.lr, self.weight_decay))
        return [{"lr": lr, "weight_decay": decay} for lr, decay in itertools.product(lrs, decays)]


class Tried(Frozen):
    """A setting and what came of it. error: top-1 in percent at its last epoch, None if it failed.

    With scheduler short-first one is finished after a full training, stopped after a short one; epochs: of both.
    """

    number: int
    lr: float
    weight_decay: float
    state: Literal["finished", "stopped", "failed", "unfinished"]
    epochs: float
    error: float | None
    note: str = ""


def run_number(trial: FrozenTrial | Trial) -> int:
    """Number of the run that a trial trains: its own, or that of the trial that it continues."""
    return trial.user_attrs.get(CONTINUES, trial.number)


def attempts(study: Study) -> list[FrozenTrial]:
    """The trials of a study, the last of each run, in the order of the runs."""
    last = {run_number(trial): trial for trial in study.get_trials(deepcopy=False)}
    return [last[number] for number in sorted(last)]


def setting(base: Run, number: int, lr: float, weight_decay: float) -> Run:
    """The run of a trial, under a name of its own."""
    optim = base.recipe.optim.model_copy(update={"lr": lr, "weight_decay": weight_decay})
    return base.model_copy(
        update={"recipe": base.recipe.model_copy(update={"optim": optim, "variant": f"t{number:03d}"})}
    )
