"""The paper's comparisons as sweeps: Ray Tune runs each (recipe, seed) of a table or figure, as many at once as fit."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pipelines.cluster import connection
from pipelines.cluster.planning.known_nodes import known_nodes, wishes
from pipelines.file_names import below
from pipelines.progress.console import say
from pipelines.progress.sweep_table import Board, Row
from pipelines.progress.text_table import text_table
from pipelines.run import Run, standard
from pipelines.storage import Folder
from pipelines.tracking import mlflow_runs
from pipelines.training.guards.run_holder import require_free
from pipelines.training.run_data import RunData, load_feed, open_source
from pipelines.training.run_folder import TrainingOutcome
from pipelines.tuning.trial_slots import (
    NO_MODELS,
    EarlyStopping,
    Slots,
    growing_room,
    judges,
    progress_row,
    refuse_options,
    require_errors,
    require_no_name,
    say_if_away,
    share_out,
)
from resnet.frozen import Frozen
from resnet.paper.published import RESULTS, TABLE2, TABLE3, Result

STOPPED = "stopped.json"  # in a run's folder: a scheduler has stopped it

PLAIN = ("cifar10-plain20", "cifar10-plain32", "cifar10-plain44", "cifar10-plain56")
RESIDUAL = ("cifar10-resnet20-A", "cifar10-resnet32-A", "cifar10-resnet44-A", "cifar10-resnet56-A")


def _networks(rows: Sequence[Result]) -> tuple[str, ...]:
    return tuple(row.network for row in rows if row.network is not None)


# What each table and figure compares. 110 and 1202 layers by --networks: they take days where 56 layers take hours.
COMPARISONS: dict[str, tuple[str, ...]] = {
    "table2": _networks(TABLE2),
    "table3": _networks(TABLE3),
    "table6": RESIDUAL,
    "figure1": ("cifar10-plain20", "cifar10-plain56"),
    "figure4": _networks(TABLE2),
    "figure6": (*PLAIN, *RESIDUAL),
    # The degradation and its cure in four networks: Figure 1, and the same depths of Figure 6 middle.
    "degradation": (PLAIN[0], PLAIN[-1], RESIDUAL[0], RESIDUAL[-1]),
    "figure7": (PLAIN[0], PLAIN[-1], RESIDUAL[0], RESIDUAL[-1]),
}


# What a sweep decides itself.
TAKEN = {
    "--seed": "--seeds gives them",
    "--recipe.network": "--networks names them",
    "--recipe.variant": "--networks NETWORK@VARIANT names it",
    "--promote": NO_MODELS,
    "--model-name": NO_MODELS,
}


class Sweep(EarlyStopping):
    """Which runs, and how many at once."""

    seeds: Annotated[tuple[int, ...], Field(min_length=1, description="each network is trained with each of them")] = (
        0,
        1,
        2,
    )
    networks: Annotated[tuple[str, ...], Field(description="these instead of the comparison's own")] = ()
    scheduler: Annotated[
        Literal["none", "asha", "pbt"],
        Field(description="asha: stop early what is not among the best at each rung; pbt: see search_recipe.py"),
    ] = "none"


class Stop(Frozen):
    """The step at which a scheduler stopped a run. error: top-1 in percent, by which it judged."""

    scheduler: str
    step: int
    epoch: float
    error: float


class SweepRun(Frozen):
    """One run of a sweep, the command that makes it alone, and what came out."""

    run: Run
    command: str
    outcome: TrainingOutcome | None = None
    stop: Stop | None = None
    failure: str | None = None


def trials(
    name: str, sweep: Sweep, overrides: Sequence[str], parse: Callable[[Run, Sequence[str]], Run]
) -> list[SweepRun]:
    """The runs of a comparison. overrides: words of the command line; parse: applies them to a run."""
    if name not in COMPARISONS:
        raise ValueError(f"the comparison must be one of {', '.join(COMPARISONS)}, got {name!r}")
    if sweep.scheduler == "pbt":
        raise ValueError(
            "scheduler must be none or asha here, got pbt: it changes lr and weight decay in the middle of a training, "
            "and networks without a common recipe cannot be compared; jobs/search_recipe.py --scheduler pbt is for one"
        )
    refuse_options(overrides, TAKEN)
    data_is_given = any(word.startswith("--data.path") for word in overrides)
    found = []
    for network in sweep.networks or COMPARISONS[name]:
        for seed in sweep.seeds:
            run = parse(standard(network, data_is_given=data_is_given), [*overrides, "--seed", str(seed)])
            require_errors(run, sweep.scheduler)
            require_no_name(run)
            # The comparison's own folder; one worker, so that small networks train side by side, not one after another.
            scaling = run.scaling.model_copy(update={"workers": run.scaling.workers or 1})
            place = run.storage or str(Path(run.storage_path) / name)
            run = run.model_copy(update={"storage": place, "scaling": scaling, "promote": False})
            words = [network, *overrides, "--seed", str(seed), "--scaling.workers", str(scaling.workers)]
            found.append(SweepRun(run=run, command=f"python jobs/train_imagenet.py {shlex.join(words)}"))
    return found


def run_sweep(name: str, sweep: Sweep, planned: list[SweepRun]) -> list[SweepRun]:
    """Train what is not finished yet and return all trials with their outcomes. The same call goes on after a stop."""
    source = open_source(planned[0].run)
    known = [_known(t, sweep, source) for t in planned]
    waiting = [t for t in known if t.outcome is None and t.stop is None]
    for trial in waiting:
        require_free(Folder(trial.run.folder), say)
    say(f"{name}: {len(known)} runs, {len(known) - len(waiting)} of them ended already")
    if sweep.scheduler != "none":
        say(f"{sweep.scheduler} judges by the top-1 error of {judges(source)}")
    if not waiting:
        return known
    say_if_away()
    connection.connect(dashboard=True)  # by it Ray Train frees the CPUs of a trial that was stopped
    # For all trials, not for those that wait: the number of threads decides the last bit.
    slots = share_out(known_nodes(), wishes(waiting[0].run), len(known), sweep.concurrent)
    waiting = [_placed(t, slots) for t in longest_first(waiting, source.train.examples)]
    say(f"{slots.shown}; each alone:\n" + "\n".join(f"  {t.command}" for t in waiting))
    board = Board(name, {t.run.name: _row(t, source) for t in known}, slots.at_once)
    _tune(name, sweep, known, waiting, source, board, growing_room(slots, sweep.concurrent))
    ended = [_known(t, sweep, source) for t in known]
    return [
        t if t.outcome or t.stop else t.model_copy(update={"failure": board.rows[t.run.name].note or "no outcome"})
        for t in ended
    ]


def _tune(
    name: str,
    sweep: Sweep,
    known: list[SweepRun],
    waiting: list[SweepRun],
    source: RunData,
    board: Board,
    room: Callable[[], int] | None,
) -> None:
    """Run the trials that wait, below one MLflow run."""
    from pipelines.tuning import tune_runner

    place = waiting[0].run.storage_path
    parent = mlflow_runs.start_sweep(name, place, sweep.model_dump(mode="json"))
    scheduler = None
    if sweep.scheduler == "asha":
        scheduler = _halving(sweep, known, source, board)
    try:
        runs = [t.run for t in waiting]
        feed = load_feed(runs[0], source)
        tune_runner.run_trials(name, place, runs, len(runs), feed, parent, board, scheduler, room)
    except BaseException:
        for key in (name, *board.running()):  # the trials' own processes end before they could say so
            mlflow_runs.close(below(place, key), "KILLED")
        raise
    failed = any(row.standing == "failed" for row in board.rows.values())
    ended = [_known(t, sweep, source) for t in known]
    errors = {f"top1_error/{t.run.name}": t.outcome.top1_error for t in ended if t.outcome is not None}
    mlflow_runs.summarise(below(place, name), errors, comparison_table(name, ended))
    mlflow_runs.close(below(place, name), "FAILED" if failed else "FINISHED")


def _halving(sweep: Sweep, known: list[SweepRun], source: RunData, board: Board) -> Any:
    """The scheduler asha over these trials, with what is known of them; it marks the folder of each that it stops."""
    from pipelines.models.checkpoint_store import CheckpointStore
    from pipelines.tuning.successive_halving import Halving

    recipe, places = known[0].run.recipe, {t.run.name: source.place(t.run) for t in known}
    per_epoch = recipe.steps_per_epoch(source.train.examples)

    def stopped(run: str, result: dict[str, Any]) -> None:
        stop = Stop(scheduler="asha", step=result["step"], epoch=result["step"] / per_epoch, error=result["top1_error"])
        places[run].write(STOPPED, stop.model_dump(mode="json"))
        mlflow_runs.close(below(known[0].run.storage_path, run), "KILLED")
        board.stand(run, "stopped", f"by asha after epoch {stop.epoch:g}")

    rows = {t.run.name: CheckpointStore.of(t.run).rows() for t in known}
    return Halving.of(sweep, recipe, source.train.examples, rows, stopped)


def _known(trial: SweepRun, sweep: Sweep, source: RunData) -> SweepRun:
    """The trial with what its folder says. A stop by a scheduler holds for sweeps with that scheduler."""
    place = source.place(trial.run)
    outcome, stop = place.check(), place.read(STOPPED)
    if outcome is not None or stop is None or stop["scheduler"] != sweep.scheduler:
        return trial.model_copy(update={"outcome": outcome})
    return trial.model_copy(update={"stop": Stop(**stop)})


def _row(trial: SweepRun, source: RunData) -> Row:
    """The trial's row of the progress table."""
    row = progress_row(trial.run, source)
    if trial.outcome is not None:
        row.standing, row.top1_error = "finished", trial.outcome.top1_error
    if trial.stop is not None:
        row.standing, row.top1_error = "stopped", trial.stop.error
        row.note = f"by {trial.stop.scheduler} after epoch {trial.stop.epoch:g}"
    return row


def _placed(trial: SweepRun, slots: Slots) -> SweepRun:
    """The trial with its part of the cluster. The command gains the threads: sums in another order differ in bits."""
    command = f"{trial.command} --scaling.threads {slots.scaling.threads}"
    return trial.model_copy(update={"run": slots.placed(trial.run), "command": command})


def longest_first(trials: list[SweepRun], examples: int) -> list[SweepRun]:
    """By multiply-adds, then as they were: a short trial that comes late fills the place that another has left."""
    from resnet.networks.cost import count

    def work(trial: SweepRun) -> int:
        recipe = trial.run.recipe
        images = recipe.total_steps(examples) * recipe.optim.batch_size
        return images * count(recipe.network, size=recipe.images.size).multiply_adds

    return sorted(trials, key=work, reverse=True)


def comparison_table(name: str, done: list[SweepRun]) -> str:
    """Ours beside the paper's: mean and standard deviation of the top-1 error over seeds, in percent."""
    published = {row.network: row.top1_error for row in RESULTS if row.network and row.source.startswith("Table")}
    rows = []
    for network in dict.fromkeys(t.run.recipe.network for t in done):
        outcomes = [t.outcome for t in done if t.run.recipe.network == network and t.outcome is not None]
        errors = [o.top1_error for o in outcomes]
        training = [o.train_error for o in outcomes]
        known = published.get(network)
        paper = "-" if known is None else f"{known:.2f}"
        rows.append((network, str(len(errors)), _spread(errors), _spread(training), paper))
    lines = text_table("lrrrr", ("network", "seeds", "top-1 error %", "training error %", "paper"), rows)
    lines += [
        f"stopped by {t.stop.scheduler}: {t.run.name} after epoch {t.stop.epoch:g} with {t.stop.error:.2f} %"
        for t in done
        if t.stop is not None
    ]
    lines += [f"failed: {t.run.name}: {t.failure}" for t in done if t.failure is not None]
    first = done[0].run
    note = _difference(first)
    return "\n".join(["", f"{name}, last epoch", *lines, *([note] if note else [])])


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def _difference(run: Run) -> str:
    """A sentence, unless the run is the paper's own setting."""
    same = standard(run.recipe.network).recipe == run.recipe
    if run.data.path is not None and same:
        return ""
    data = run.data.path or "the embedded handwritten digits"
    length = f"{run.recipe.epochs:g} epochs" if run.recipe.epochs else f"{run.recipe.steps:,} steps"
    return f"Not the paper's setting ({length} on {data}): its figures stand beside for reference only."
