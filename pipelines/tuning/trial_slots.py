"""Shared by sweeps and searches: how many trainings fit at once, their rows of the progress table, early stopping."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipelines.progress.console import say
from pipelines.progress.sweep_table import Row
from pipelines.run import Run, Scaling
from pipelines.tracking import mlflow_runs
from pipelines.training.run_data import RunData
from resnet.frozen import Frozen


class EarlyStopping(Frozen):
    """The number of trainings at once, and the rule by which asha stops one."""

    concurrent: Annotated[
        int | None, Field(ge=1, description="runs at a time, which share the CPUs and GPUs. None: as many as fit")
    ] = None
    grace: Annotated[float, Field(gt=0, description="asha: epochs before the first rung")] = 1.0
    reduction: Annotated[
        float,
        Field(gt=1, description="asha: the best 1/reduction go on at a rung, the next has so many times the epochs"),
    ] = 3.0

    def grace_steps(self, per_epoch: int) -> int:
        """Steps before the first rung. per_epoch: steps of an epoch."""
        return max(1, round(self.grace * per_epoch))


def fit_in(
    scaling: Scaling, passes: int, count: int, wanted: int | None, cpus: float, gpus: float
) -> tuple[Scaling, int]:
    """The part of the cluster that each of `count` trainings has, and how many run at a time: `wanted`, or what fits.

    passes: Recipe.passes.

    CPUs are always shared out; a GPU is shared only where more are wanted at a time than there are GPUs.
    """
    on_gpu = gpus >= 1 if scaling.gpu is None else scaling.gpu
    room = max(1, int((gpus if on_gpu else cpus) // scaling.most))
    concurrent = min(count, wanted or room)
    each = gpus / concurrent if on_gpu else 0.0
    if on_gpu and each < scaling.most:
        part = int(100 * each / scaling.most) / 100
        scaling = scaling.model_copy(update={"gpu": True, "gpus_per_worker": part})
    # Half a CPU stays for the trials' own processes, which mostly wait.
    return scaling.resolve(max(1.0, cpus - 0.5) / concurrent, each, passes), concurrent


def require_errors(run: Run, scheduler: str) -> None:
    """ValueError: a scheduler would judge epochs that are not evaluated."""
    if scheduler != "none" and run.evaluate_every > 1:
        raise ValueError(f"evaluate_every must be 1 with scheduler {scheduler}, got {run.evaluate_every}")


def require_no_name(run: Run) -> None:
    """ValueError: one name for all runs of a sweep, which would share a folder."""
    if run.run_name is not None:
        raise ValueError(f"run_name is for one training, a sweep names its own, got {run.run_name}")


def say_if_away() -> None:
    """Look at MLflow's store before a sweep takes anything of the cluster, say if it is away.

    ValueError: it refuses.
    """
    if (away := mlflow_runs.check_tracking()) is not None:
        say(f"{away}; the sweep goes on, and what is missed is recorded later")


def progress_row(run: Run, source: RunData) -> Row:
    """A training's row of the progress table."""
    from resnet.networks.cost import count

    images = run.recipe.total_steps(source.train.examples) * run.recipe.optim.batch_size
    return Row(run.name, count(run.recipe.network).multiply_adds, images)


def judges(source: RunData) -> str:
    """The images whose errors a scheduler or a search goes by. The test set is never called by another name."""
    if source.holdout:
        return (
            f"{source.holdout:,} training images that are held out of {source.uri}; its validation split stays unseen"
        )
    return f"the {source.val.examples:,} validation images of {source.uri}, by which results are reported as well"
