"""Successive halving over the length of trainings: all settings in short ones, the best of them in full.

A short training has the whole schedule in it: its lr falls to the end. Stopped early, a training of a large lr looks
bad until that is lowered, at half of the paper's schedule (docs/decisions, sweeps); in short trainings of their own
the settings are compared as they end. It is successive halving (Jamieson and Talwalkar 2016) with one rung, whose
resource is the length, and which begins a training anew when it goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines.file_names import below
from pipelines.progress.console import say
from pipelines.progress.sweep_table import Board
from pipelines.run import Run
from pipelines.tracking import mlflow_runs
from pipelines.training.run_data import RunData, WorkerData
from pipelines.training.run_folder import TrainingOutcome
from pipelines.tuning.search_space import Search, Tried, attempts, run_number, setting
from pipelines.tuning.trial_slots import progress_row

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

FULL = "full"  # behind the number of a trial: the name of its full training


def shortened(base: Run, short: float) -> Run:
    """The run with a part of its recipe's length; milestones and warm-up are parts of it too."""
    recipe = base.recipe
    length: dict[str, float] = {"steps": max(1, round((recipe.steps or 0) * short))}
    if recipe.epochs is not None:
        length = {"epochs": recipe.epochs * short}
    return base.model_copy(update={"recipe": recipe.model_copy(update=length)})


def note_on(base: Run) -> str | None:
    """A sentence where a short training is no small picture of the full one."""
    if base.recipe.schedule.kind != "plateau":
        return None
    return "note: schedule plateau does not shorten with the training, a short one may judge a large lr too badly"


def best_settings(asked: Search, study: Study) -> list[FrozenTrial]:
    """The trials whose short trainings ended best, the best first; none before all settings had theirs."""
    if not _all_ended(asked, study):
        return []
    whole = [t for t in attempts(study) if t.state.name == "COMPLETE"]
    return sorted(whole, key=lambda t: (t.value, run_number(t)))[: asked.finalist_count]


def _all_ended(asked: Search, study: Study) -> bool:
    return sum(t.state.is_finished() for t in attempts(study)) >= asked.count


def full_run(base: Run, trial: FrozenTrial) -> Run:
    """The full training of a setting, in a folder of its own."""
    run = setting(base, run_number(trial), trial.params["lr"], trial.params["weight_decay"])
    recipe = run.recipe.model_copy(update={"variant": f"{run.recipe.variant}-{FULL}"})
    return run.model_copy(update={"recipe": recipe})


def outcome_of(base: Run, source: RunData, trial: FrozenTrial) -> TrainingOutcome | None:
    """Outcome of the full training of a setting; None before its end."""
    return source.place(full_run(base, trial)).check()


def is_done(asked: Search, base: Run, source: RunData, study: Study) -> bool:
    """True if all settings had their short training, and the best of them their full one."""
    outcomes = [outcome_of(base, source, trial) for trial in best_settings(asked, study)]
    return _all_ended(asked, study) and None not in outcomes


def train_best(
    asked: Search,
    base: Run,
    source: RunData,
    feed: WorkerData,
    study: Study,
    name: str,
    slots: int,
    parent: str | None,
    room: Callable[[], int] | None,
) -> None:
    """Train the best settings in full, those that are not finished yet. name: of the search; slots: at a time."""
    from pipelines.tuning.tune_runner import run_trials

    found = best_settings(asked, study)
    runs = [full_run(base, trial) for trial in found if outcome_of(base, source, trial) is None]
    if not runs:
        return
    said = ", ".join(f"{run.recipe.optim.lr:.4g} and {run.recipe.optim.weight_decay:.4g}" for run in runs)
    say(f"in full now, lr and weight decay: {said}")
    board = Board(name, {run.name: progress_row(run, source) for run in runs}, slots)  # one shows once
    try:
        run_trials(name, base.storage_path, runs, len(runs), feed, parent, board, None, room)
    except BaseException:
        for key in board.running():
            mlflow_runs.close(below(base.storage_path, key), "KILLED")
        raise


def tried_of(asked: Search, base: Run, source: RunData, study: Study) -> tuple[Tried, ...]:
    """All settings as people read them: the error of the full training where there was one, else of the short one."""
    per_epoch = base.recipe.steps_per_epoch(source.train.examples)
    total = base.recipe.total_steps(source.train.examples) / per_epoch
    short = shortened(base, asked.short).recipe.total_steps(source.train.examples) / per_epoch
    best = {run_number(trial) for trial in best_settings(asked, study)}
    trials = [trial for trial in attempts(study) if trial.params]
    return tuple(_tried_short(base, source, trial, short, total, run_number(trial) in best) for trial in trials)


def _tried_short(base: Run, source: RunData, trial: FrozenTrial, short: float, total: float, best: bool) -> Tried:
    number, params, note = run_number(trial), trial.params, trial.user_attrs.get("note", "")
    full = outcome_of(base, source, trial) if best else None
    told = Tried(
        number=number, lr=params["lr"], weight_decay=params["weight_decay"], state="unfinished", epochs=0.0, error=None
    )
    if trial.state.name == "FAIL":
        return told.model_copy(update={"state": "failed", "note": note})
    if trial.value is None:
        return told
    if full is not None:
        return told.model_copy(update={"state": "finished", "epochs": short + total, "error": full.top1_error})
    state = "unfinished" if best else "stopped"
    note = "" if best else "after a short training"
    return told.model_copy(update={"state": state, "epochs": short, "error": trial.value, "note": note})
