"""The search of lr and weight decay for a network: Optuna proposes, Ray Tune trains, a study on disk remembers.

Errors are those of training images that are held out; the test images are not looked at unless holdout is 0.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cluster import connection
from pipelines.cluster.planning.known_nodes import known_nodes, wishes
from pipelines.file_names import below
from pipelines.models.initial_weights import start_of
from pipelines.progress.console import say
from pipelines.progress.sweep_table import Board
from pipelines.progress.text_table import text_table
from pipelines.run import Run, home
from pipelines.tracking import mlflow_runs
from pipelines.training.run_data import RunData, load_feed, open_source
from pipelines.tuning import short_first
from pipelines.tuning.search_space import Search, Tried, attempts, run_number
from pipelines.tuning.trial_slots import (
    NO_MODELS,
    Slots,
    growing_room,
    judges,
    refuse_options,
    require_errors,
    require_no_name,
    say_if_away,
    share_out,
)
from resnet.frozen import Frozen

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

Parse = Callable[[Run, Sequence[str]], Run]


# What a search decides itself.
TAKEN = {
    "--recipe.optim.lr": "--lr LOW HIGH is the range that is searched",
    "--recipe.optim.weight-decay": "--weight-decay LOW HIGH is the range that is searched",
    "--recipe.network": "the first word names it",
    "--recipe.variant": "the first word names it, as NETWORK@VARIANT",
    "--promote": NO_MODELS,
    "--model-name": NO_MODELS,
}


class Found(Frozen):
    """Outcome of a search. command: trains the best setting on all images; judged_by: whose errors they are."""

    network: str
    judged_by: str
    best: Tried | None
    tried: tuple[Tried, ...]
    epochs_trained: float
    epochs_of_all: float
    seconds: float
    command: str | None


def base_run(network: str, overrides: Sequence[str], parse: Parse) -> Run:
    """The run that is varied. A tenth of the training images is held out unless --data.holdout says otherwise."""
    refuse_options(overrides, TAKEN)
    given = any(word.startswith("--data.path") for word in overrides)
    start, words = start_of(network, overrides, given)
    run = parse(start, words)
    if not any(word.startswith("--data.holdout") for word in overrides):
        holdout = open_source(run).train.examples // 10
        run = run.model_copy(update={"data": run.data.model_copy(update={"holdout": holdout})})
    scaling = run.scaling.model_copy(update={"workers": run.scaling.workers or 1})
    place = below(run.storage_path, f"search-{run.recipe.name}")
    return run.model_copy(update={"scaling": scaling, "storage": place, "promote": False})


def search(network: str, asked: Search, overrides: Sequence[str], parse: Parse) -> Found:
    """Search, or go on with the search that an earlier call of the same command began."""
    base = base_run(network, overrides, parse)
    shorter = asked.scheduler == "short-first"
    require_errors(base, "none" if shorter else asked.scheduler)
    require_no_name(base)
    source, began = open_source(base), time.monotonic()
    say(f"{base.recipe.name}: {asked.count} settings, judged by {judges(source)}")
    if shorter and (note := short_first.note_on(base)) is not None:
        say(note)
    study = open_study(asked, base, source)
    left = asked.count - sum(t.state.is_finished() for t in attempts(study))
    tried: tuple[Tried, ...] = ()
    waiting = not short_first.is_done(asked, base, source, study) if shorter else left > 0
    if waiting:
        say_if_away()
        connection.connect(dashboard=True)  # by it Ray Train frees the CPUs of a trial that was stopped
        slots = share_out(known_nodes(), wishes(base), asked.count, asked.concurrent)
        base = slots.placed(base)
        say(slots.shown)
        tried = _tune(asked, base, source, study, left, slots)
    if shorter:
        tried = short_first.tried_of(asked, base, source, study)
    elif asked.scheduler != "pbt":
        per_epoch = base.recipe.steps_per_epoch(source.train.examples)
        total = base.recipe.total_steps(source.train.examples) / per_epoch
        tried = tuple(_tried(t, per_epoch, total) for t in attempts(study) if t.params)
    found = _found(asked, base, overrides, source, tried, time.monotonic() - began)
    if waiting:
        errors = {f"top1_error/t{t.number:03d}": t.error for t in tried if t.error is not None}
        mlflow_runs.summarise(below(base.storage_path, f"search-{base.recipe.name}"), errors, search_table(found))
    return found


def open_study(asked: Search, base: Run, source: RunData) -> Study:
    """Optuna's study in $RESNET_HOME/optuna.db. ValueError: it is damaged, or was asked for other things."""
    import optuna
    from sqlalchemy.exc import DatabaseError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    Path(home()).mkdir(parents=True, exist_ok=True)
    sampler = optuna.samplers.TPESampler(seed=base.seed, constant_liar=True)
    if asked.sampler == "random":
        sampler = optuna.samplers.RandomSampler(seed=base.seed)
    where = f"sqlite:///{home()}/optuna.db"
    try:
        study = optuna.create_study(storage=where, study_name=base.storage_path, sampler=sampler, load_if_exists=True)
    except (optuna.exceptions.StorageInternalError, DatabaseError) as error:  # damaged, or a file of something else
        said = str(error.__cause__ or error).splitlines()[0]
        raise ValueError(f"{home()}/optuna.db must be Optuna's studies; move it away to begin anew ({said})") from None
    what = {"recipe": base.recipe.model_dump(mode="json"), "seed": base.seed, "data_sha256": source.sha256}
    what |= asked.model_dump(mode="json", exclude={"trials", "concurrent"})
    told = json.loads(json.dumps(what))
    before = told | study.user_attrs.get("asked", told)  # what a later version asks too, an older study was not asked
    if before != told:
        field = next(name for name in told if before.get(name) != told[name])
        raise ValueError(
            f"{field} must be as in the search that {base.storage_path} holds, {before.get(field)}, got {told[field]}; "
            "for another search give another --storage"
        )
    study.set_user_attr("asked", told)
    if asked.sampler == "grid":
        for point in asked.grid():
            study.enqueue_trial(point, skip_if_exists=True)
    return study


def _tune(asked: Search, base: Run, source: RunData, study: Study, left: int, slots: Slots) -> tuple[Tried, ...]:
    """Train what is left, below one MLflow run. The members of a population; of a study nothing, it knows itself."""
    name = f"search-{base.recipe.name}"
    parent = mlflow_runs.start_sweep(name, base.storage_path, asked.model_dump(mode="json"))
    board, feed, status = Board(name, {}, slots.at_once), load_feed(base, source), "KILLED"
    try:
        if asked.scheduler == "pbt":
            from pipelines.tuning.population import train_population

            tried = train_population(asked, base, source, feed, board, parent)
        else:
            from pipelines.tuning import optuna_searcher

            room = growing_room(slots, asked.concurrent)
            first = short_first.shortened(base, asked.short) if asked.scheduler == "short-first" else base
            if left > 0:
                optuna_searcher.run(asked, first, source, feed, study, left, board, parent, room)
            if asked.scheduler == "short-first":
                short_first.train_best(asked, base, source, feed, study, name, slots.at_once, parent, room)
            tried = ()
        status = "FINISHED"
        return tried
    finally:
        for key in (name, *(board.running() if status == "KILLED" else ())):
            mlflow_runs.close(below(base.storage_path, key), status)


def _found(
    asked: Search, base: Run, overrides: Sequence[str], source: RunData, tried: tuple[Tried, ...], seconds: float
) -> Found:
    total = base.recipe.total_steps(source.train.examples) / base.recipe.steps_per_epoch(source.train.examples)
    best = min((t for t in tried if t.state == "finished"), key=lambda t: t.error or 0.0, default=None)
    command = None
    if best is not None and asked.scheduler != "pbt":  # a population's best had several settings one after another
        words = [base.recipe.network, *_without_holdout(overrides), "--recipe.optim.lr", f"{best.lr:.4g}"]
        words += ["--recipe.optim.weight-decay", f"{best.weight_decay:.4g}"]
        command = f"python jobs/train_imagenet.py {shlex.join(words)}"
    return Found(
        network=base.recipe.network,
        judged_by=judges(source),
        best=best,
        tried=tried,
        epochs_trained=sum(t.epochs for t in tried),
        epochs_of_all=total * len(tried),
        seconds=seconds,
        command=command,
    )


def _without_holdout(words: Sequence[str]) -> list[str]:
    """The overrides for the training on all images."""
    kept: list[str] = []
    skip = False
    for word in words:
        if word.startswith("--data.holdout"):
            skip = "=" not in word
        elif skip:
            skip = False
        else:
            kept.append(word)
    return kept


def _tried(trial: FrozenTrial, per_epoch: int, total: float) -> Tried:
    """A trial of the study as people read it."""
    states = {"COMPLETE": "finished", "PRUNED": "stopped", "FAIL": "failed"}
    steps = trial.last_step or 0
    state: Any = states.get(trial.state.name, "unfinished")
    error = trial.value if trial.value is not None else trial.intermediate_values.get(steps)
    return Tried(
        number=run_number(trial),
        lr=trial.params["lr"],
        weight_decay=trial.params["weight_decay"],
        state=state,
        epochs=total if state == "finished" else steps / per_epoch,
        error=None if state == "failed" else error,
        note=trial.user_attrs.get("note", ""),
    )


def search_table(found: Found) -> str:
    """The settings, the best first, and what was saved."""
    rows = []
    for t in sorted(found.tried, key=lambda t: (t.state != "finished", -t.epochs, t.error or 0.0)):
        error = "-" if t.error is None else f"{t.error:.2f}"
        state = f"{t.state} {t.note}".rstrip()
        rows.append((str(t.number), f"{t.lr:.4g}", f"{t.weight_decay:.4g}", f"{t.epochs:.4g}", error, state))
    lines = text_table("rrrrrl", ("trial", "lr", "weight decay", "epochs", "top-1 error %", "state"), rows)
    share = found.epochs_trained / found.epochs_of_all if found.epochs_of_all else 1.0
    lines.append(
        f"{found.epochs_trained:.4g} epochs trained, {100 * (1 - share):.0f} % fewer than the "
        f"{found.epochs_of_all:.4g} of all settings to the end"
    )
    lines.append(f"Errors are of {found.judged_by}.")
    if found.command is not None:
        lines.append(f"The best setting on all training images: {found.command}")
    return "\n".join(["", found.network, *lines])
