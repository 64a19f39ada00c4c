"""The paper's comparisons as sweeps: Ray Tune runs each (recipe, seed) of a table or figure, as many at once as fit."""

from __future__ import annotations

import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pipelines import cluster, progress, tracking
from pipelines.feed import Feed
from pipelines.place import Outcome, Place
from pipelines.run import Run, standard
from pipelines.train import Source, fit, load_feed, open_source
from resnet import paper
from resnet.recipe import Frozen

PLAIN = ("cifar10-plain20", "cifar10-plain32", "cifar10-plain44", "cifar10-plain56")
RESIDUAL = ("cifar10-resnet20-A", "cifar10-resnet32-A", "cifar10-resnet44-A", "cifar10-resnet56-A")


def _networks(rows: Sequence[paper.Result]) -> tuple[str, ...]:
    return tuple(row.network for row in rows if row.network is not None)


# What each table and figure compares. 110 and 1202 layers by --networks: they take days where 56 layers take hours.
COMPARISONS: dict[str, tuple[str, ...]] = {
    "table2": _networks(paper.TABLE2),
    "table3": _networks(paper.TABLE3),
    "table6": RESIDUAL,
    "figure1": ("cifar10-plain20", "cifar10-plain56"),
    "figure4": _networks(paper.TABLE2),
    "figure6": (*PLAIN, *RESIDUAL),
    "figure7": (PLAIN[0], PLAIN[-1], RESIDUAL[0], RESIDUAL[-1]),
}


class Sweep(Frozen):
    """Which runs, and how many at once."""

    seeds: Annotated[tuple[int, ...], Field(min_length=1, description="each network is trained with each of them")] = (
        0,
        1,
        2,
    )
    networks: Annotated[tuple[str, ...], Field(description="these instead of the comparison's own")] = ()
    concurrent: Annotated[int | None, Field(ge=1, description="runs at a time. None: as many as fit")] = None


class Trial(Frozen):
    """One run of a sweep, the command that makes it alone, and what came out."""

    run: Run
    command: str
    outcome: Outcome | None = None
    failure: str | None = None


def trials(
    name: str, sweep: Sweep, overrides: Sequence[str], parse: Callable[[Run, Sequence[str]], Run]
) -> list[Trial]:
    """The runs of a comparison. overrides: words of the command line; parse: applies them to a run."""
    if name not in COMPARISONS:
        raise ValueError(f"the comparison must be one of {', '.join(COMPARISONS)}, got {name!r}")
    data_is_given = any(word.startswith("--data.path") for word in overrides)
    found = []
    for network in sweep.networks or COMPARISONS[name]:
        for seed in sweep.seeds:
            run = parse(standard(network, data_is_given=data_is_given), [*overrides, "--seed", str(seed)])
            # The comparison's own folder; one worker, so that small networks train side by side, not one after another.
            scaling = run.scaling.model_copy(update={"workers": run.scaling.workers or 1})
            place = run.storage or str(Path(run.storage_path) / name)
            run = run.model_copy(update={"storage": place, "scaling": scaling, "promote": False})
            words = [network, *overrides, "--seed", str(seed), "--scaling.workers", str(scaling.workers)]
            found.append(Trial(run=run, command=f"python jobs/train_imagenet.py {shlex.join(words)}"))
    return found


def run_sweep(name: str, sweep: Sweep, planned: list[Trial]) -> list[Trial]:
    """Train what is not finished yet and return all trials with their outcomes. The same call goes on after a stop."""
    source = open_source(planned[0].run)
    done = {t.run.name: Place(t.run, source.sha256).claim() for t in planned}
    waiting = [t for t in planned if done[t.run.name] is None]
    _say(f"{name}: {len(planned)} runs, {len(planned) - len(waiting)} of them finished already")
    failures: dict[str, str] = {}
    if waiting:
        resources = cluster.connect()
        waiting, concurrent = fit_in(waiting, sweep.concurrent, resources.get("CPU", 1), resources.get("GPU", 0))
        parent = tracking.start_sweep(name, planned[0].run.storage_path)
        _say(f"{concurrent} at a time; each alone:\n" + "\n".join(f"  {t.command}" for t in waiting))
        feed = load_feed(waiting[0].run, source)
        with progress.Watch([t.run.name for t in waiting]):
            failures = _tune(name, waiting, concurrent, feed, parent)
        done |= {t.run.name: _finished(t, source) for t in waiting}
    return [t.model_copy(update={"outcome": done[t.run.name], "failure": failures.get(t.run.name)}) for t in planned]


def fit_in(waiting: list[Trial], concurrent: int | None, cpus: float, gpus: float) -> tuple[list[Trial], int]:
    """Give every run its part of the cluster; how many then run at a time."""
    scaling = waiting[0].run.scaling
    on_gpu = gpus >= 1 if scaling.gpu is None else scaling.gpu
    room = max(1, int((gpus if on_gpu else cpus) // scaling.most))
    concurrent = min(len(waiting), concurrent or room)
    # Half a CPU stays for the trials' own processes, which mostly wait.
    share = (max(1.0, cpus - 0.5) / concurrent, gpus / concurrent if on_gpu else 0.0)
    return [
        t.model_copy(update={"run": t.run.model_copy(update={"scaling": t.run.scaling.resolve(*share)})})
        for t in waiting
    ], concurrent


def _finished(trial: Trial, source: Source) -> Outcome | None:
    return Place(trial.run, source.sha256).claim()


def _tune(name: str, waiting: list[Trial], concurrent: int, feed: Feed, parent: str | None) -> dict[str, str]:
    """Run trials by Ray Tune; the reason of each failure by the run's name."""
    from ray import tune

    trainable: Any = tune.with_resources(tune.with_parameters(_trial, feed=feed, parent=parent), {"CPU": 0.01})
    folder = Path(waiting[0].run.storage_path) / "tune"
    tuner = tune.Tuner(
        trainable,
        param_space={"run": tune.grid_search([t.run.model_dump_json() for t in waiting])},
        tune_config=tune.TuneConfig(metric="top1_error", mode="min", max_concurrent_trials=concurrent),
        run_config=tune.RunConfig(name=f"{name}-{time.strftime('%Y%m%d-%H%M%S')}", storage_path=str(folder), verbose=0),
    )
    results = tuner.fit()
    failures = {}
    for result in results:
        if result.error is not None and result.config is not None:
            run = Run.model_validate_json(result.config["run"])
            failures[run.name] = str(result.error).strip().splitlines()[-1]
    return failures


def _trial(config: dict[str, str], feed: Feed, parent: str | None) -> None:
    """A Tune trial: one training run by Ray Train, in the trial's own process."""
    from ray.tune.integration.ray_train import TuneReportCallback

    run = Run.model_validate_json(config["run"])
    fit(run, feed=feed, show=False, parent=parent, callbacks=(TuneReportCallback(),))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(name: str, done: list[Trial]) -> str:
    """Ours beside the paper's: mean and standard deviation of the top-1 error over seeds, in percent."""
    published = {row.network: row.top1_error for row in paper.RESULTS if row.network and row.source.startswith("Table")}
    lines = [f"{'network':<22} {'seeds':>5} {'top-1 error %':>16} {'training error %':>17} {'paper':>7}"]
    for network in dict.fromkeys(t.run.recipe.network for t in done):
        outcomes = [t.outcome for t in done if t.run.recipe.network == network and t.outcome is not None]
        errors = [o.top1_error for o in outcomes]
        training = [o.train_error for o in outcomes]
        known = published.get(network)
        lines.append(
            f"{network:<22} {len(errors):>5} {_spread(errors):>16} {_spread(training):>17} "
            f"{'-' if known is None else f'{known:.2f}':>7}"
        )
    lines += [f"failed: {t.run.name}: {t.failure or 'no outcome'}" for t in done if t.outcome is None]
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
