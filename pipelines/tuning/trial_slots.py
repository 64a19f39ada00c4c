"""Shared by sweeps and searches: how many trainings fit at once, their rows of the progress table, early stopping."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from pipelines.cluster.connection import may_grow
from pipelines.cluster.planning.known_nodes import nodes_up
from pipelines.cluster.planning.resource_plan import (
    EXACT,
    LEFT,
    Node,
    Wishes,
    described,
    is_on_gpus,
    largest_share,
    number,
    plan_training,
)
from pipelines.progress.console import say
from pipelines.progress.sweep_table import Row
from pipelines.run import Run, Scaling
from pipelines.tracking import mlflow_runs
from pipelines.training.run_data import RunData
from resnet.frozen import FrozenSettings

LATE = 0.6  # part of a training after which asha judges: the paper's schedule has lowered lr once (docs/decisions)
OWN = 0.5  # CPUs of a node for the processes of trials


class EarlyStopping(FrozenSettings):
    """The number of trainings at once, and the rule by which asha stops one."""

    concurrent: Annotated[
        int | None, Field(ge=1, description="runs at a time, which share the CPUs and GPUs. None: as many as fit")
    ] = None
    grace: Annotated[
        float | None,
        Field(
            gt=0,
            description=f"asha: epochs before the first rung, None: {LATE:g} of the training, when lr has been "
            "lowered; pbt: epochs between two exchanges, None: one",
        ),
    ] = None
    reduction: Annotated[
        float,
        Field(gt=1, description="asha: the best 1/reduction go on at a rung, the next has so many times the epochs"),
    ] = 3.0

    @model_validator(mode="after")
    def _stopping_has_its_scheduler(self) -> Self:
        scheduler = getattr(self, "scheduler", "asha")
        users = {"grace": ("asha", "pbt"), "reduction": ("asha",)}
        for field, schedulers in users.items():
            value, usual = getattr(self, field), EarlyStopping.model_fields[field].default
            if value != usual and scheduler not in schedulers:
                raise ValueError(f"{field} has an effect with scheduler asha only, got {value:g} with {scheduler}")
        return self

    def grace_steps(self, per_epoch: int, usual: float) -> int:
        """Steps before the first rung. per_epoch: steps of an epoch; usual: where no grace is given."""
        return max(1, round(usual if self.grace is None else self.grace * per_epoch))


class Slots(NamedTuple):
    """The trainings of a sweep side by side. scaling: of each, nothing left open; at_once: how many run."""

    scaling: Scaling
    at_once: int
    decode: Literal["tasks", "worker"]

    @property
    def shown(self) -> str:
        """One line for a person."""
        scaling, gpu = self.scaling, self.scaling.gpus_per_worker or 1
        device = f"{gpu:g} GPU, " if scaling.gpu else ""
        each = f"{scaling.workers} worker(s) with {device}" if scaling.most > 1 else device
        threads = number(scaling.threads or 1, "thread")
        return f"{self.at_once} at a time, each with {each}{scaling.cpus_per_worker:g} CPUs and {threads}"

    def placed(self, run: Run) -> Run:
        """A run with its part of the cluster."""
        data = run.data.model_copy(update={"decode": self.decode})
        return run.model_copy(update={"scaling": self.scaling, "data": data})

    def fitting(self, up: Sequence[Node]) -> int:
        """Trainings that nodes which are up have room for, at least those that were planned."""
        scaling = self.scaling
        cpus = (scaling.cpus_per_worker or 1) + (scaling.data_cpus or 0)
        gpus = (scaling.gpus_per_worker or 1) if scaling.gpu else 0.0
        room = sum(node._replace(cpus=node.cpus - OWN).room(cpus, gpus) for node in up if node.cpus > OWN)
        return max(self.at_once, room // scaling.most)


def share_out(nodes: Sequence[Node], wishes: Wishes, count: int, wanted: int | None) -> Slots:
    """The scaling of each of `count` trainings, and their number at a time: `wanted`, or what fits.

    CPUs are always shared out; a GPU is shared only where more are wanted at a time than there are GPUs, by as many on
    each. ValueError: so many at a time, or one alone, can never fit.
    """
    working = [node for node in nodes if node.cpus > 0]
    on_gpu = is_on_gpus(working, wishes)
    holding = [node for node in working if node.gpus >= 1] if on_gpu else working
    at_once, part = _at_once(holding, wishes.scaling, on_gpu, count, wanted)
    given = {"gpu": on_gpu} | ({"gpus_per_worker": part} if part else {})
    asked = wishes._replace(scaling=wishes.scaling.model_copy(update=given))
    plan_training(working, asked)  # refuses what does not even fit alone
    most = wishes.scaling.most
    each = most * _cpus_each(holding, at_once * most, part or 1.0, on_gpu)
    if wishes.scaling.cpus_per_worker is None and each < 2 * LEFT - EXACT:
        raise ValueError(
            f"concurrent must leave {2 * LEFT} CPUs to each training, got {at_once} at a time on {described(holding)}"
        )
    plan = plan_training([Node(each, float(most) if on_gpu else 0.0)], asked)
    spare = sum(node.cpus for node in working if node.up and node not in holding)
    beside = spare >= sum(node.cpus for node in holding)  # nodes without a GPU that have most of the CPUs
    return Slots(plan.scaling, at_once, "tasks" if beside and wishes.decode == "auto" else plan.decode)


def _at_once(
    holding: Sequence[Node], scaling: Scaling, on_gpu: bool, count: int, wanted: int | None
) -> tuple[int, float | None]:
    """The number of trainings at a time, and the part of a GPU that each has; None: whole ones, or none."""
    devices = sum(int(node.gpus if on_gpu else node.cpus) for node in holding)
    part = scaling.gpus_per_worker if on_gpu else None
    room = max(1, devices // scaling.most * (int(1 / part + EXACT) if part else 1))
    at_once = min(count, wanted or room)
    if not on_gpu or at_once <= room:
        return at_once, part
    if scaling.most > 1 or part is not None:
        raise ValueError(
            f"concurrent must be at most {room} with {number(scaling.most, 'worker')} of {part or 1:g} GPU each on the "
            f"cluster's {devices} GPUs, got {at_once}"
        )
    return at_once, int(100 / -(-at_once // max(1, devices))) / 100


def _cpus_each(holding: Sequence[Node], workers: int, gpus: float, on_gpu: bool) -> float:
    """CPUs of each of so many workers. Half a CPU of a node stays for the trials' own processes, which mostly wait."""
    least = 1.0 if len(holding) == 1 else 0.0
    free = [max(least, node.cpus - OWN) for node in holding]
    if not on_gpu:
        return largest_share(free, workers)
    # Whichever of the nodes Ray takes.
    crowds = [min(workers, node.gpu_slots(gpus)) for node in holding]
    return min(cpus / crowd for cpus, crowd in zip(free, crowds, strict=True))


def growing_room(slots: Slots, wanted: int | None) -> Callable[[], int] | None:
    """The number of trainings that there is room for, asked again and again; None where the number is fixed."""
    if wanted is not None or not may_grow():
        return None
    return lambda: slots.fitting(nodes_up())


def require_errors(run: Run, scheduler: str) -> None:
    """ValueError: a scheduler would judge epochs that are not evaluated."""
    if scheduler != "none" and run.evaluate_every > 1:
        raise ValueError(f"evaluate_every must be 1 with scheduler {scheduler}, got {run.evaluate_every}")


def refuse_options(words: Sequence[str], taken: Mapping[str, str]) -> None:
    """ValueError: an option that would have no effect. taken: by its name, what is given instead."""
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        if name in taken:
            raise ValueError(f"{name} has no effect here: {taken[name]}")


NO_MODELS = "no training here registers a model"  # of a sweep or a search


def require_no_name(run: Run) -> None:
    """ValueError: one name, or one beginning, for all runs of a sweep."""
    if run.begins_elsewhere:
        raise ValueError(f"resume must be auto or never for many trainings, got {run.resume}")
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
