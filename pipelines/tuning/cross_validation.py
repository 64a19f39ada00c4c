"""k-fold cross-validation: a training on each fold with each seed, one after another, and their errors in one table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pyarrow.fs import FileType
from pydantic import Field

from pipelines.file_names import below
from pipelines.models.initial_weights import start_of
from pipelines.progress.console import say
from pipelines.progress.text_table import text_table
from pipelines.reports.collected_rows import FOLDS
from pipelines.reports.result_settings import spread
from pipelines.run import Run
from pipelines.shards.manifest import FOLD, MANIFEST, Manifest, read_manifest
from pipelines.storage import Folder
from pipelines.tracking import mlflow_runs
from pipelines.training.fit import fit
from pipelines.training.run_folder import TrainingOutcome
from pipelines.tuning.trial_slots import NO_MODELS, refuse_options, say_if_away
from resnet.frozen import Frozen, FrozenSettings

# What a cross-validation decides itself.
TAKEN = {
    "--seed": "--seeds gives them",
    "--promote": NO_MODELS,
    "--model-name": NO_MODELS,
    "--resume": "each fold begins anew",
    "--data.holdout": "each fold has its own val",
}


class CrossValidation(FrozenSettings):
    """Options of a cross-validation."""

    seeds: Annotated[
        tuple[int, ...], Field(min_length=1, description="each fold is trained with each; of weights and order")
    ] = (0,)


@dataclass(frozen=True)
class FoldPlan:
    """The trainings of a cross-validation. name: its folder's in place; data: the folder of the folds; runs: (fold from
    1, run), by seeds and then by folds."""

    name: str
    place: str
    recipe: str
    data: str
    folds: int
    seeds: tuple[int, ...]
    runs: tuple[tuple[int, Run], ...]


class FoldOutcome(Frozen):
    """One training. fold: from 1; outcome: its errors are those of the fold's own val."""

    fold: int
    seed: int
    outcome: TrainingOutcome


class CrossValidated(Frozen):
    """A whole cross-validation. Errors in percent.

    top1_error: of all images, each by networks that were not trained on it; by_fold: the mean over seeds of each fold's
    error; by_seed: the error of all images by each seed.
    """

    recipe: str
    data: str
    folds: int
    seeds: tuple[int, ...]
    top1_error: float
    by_fold: tuple[float, ...]
    by_seed: tuple[float, ...]
    trained: tuple[FoldOutcome, ...]


def fold_manifests(data: str) -> list[Manifest]:
    """The manifests of all folds in a folder, the first first.

    ValueError: a fold is missing, or they are not folds of one drawing.
    """
    hint = "jobs/write_shards.py --folds K --out makes them"
    if Folder(below(data, f"{FOLD}1")).kind(MANIFEST) != FileType.File:
        raise ValueError(f"data.path must be a folder of folds, {data} has no {FOLD}1 with shards; {hint}")
    first = read_manifest(below(data, f"{FOLD}1"))
    if first.splitting is None or first.splitting.folds is None:
        raise ValueError(f"data.path must be a folder of folds, {data}/{FOLD}1 holds shards of another kind; {hint}")
    drawing = first.splitting.model_copy(update={"fold": None})
    found = [first, *(read_manifest(below(data, f"{FOLD}{n}")) for n in range(2, first.splitting.folds + 1))]
    for number, manifest in enumerate(found, start=1):
        mine = manifest.splitting
        same = mine is not None and mine.model_copy(update={"fold": None}) == drawing
        if not same or mine is None or mine.fold != number or manifest.source.images != first.source.images:
            raise ValueError(
                f"data.path must hold folds of one drawing, {data}/{FOLD}{number} is of another than the first"
            )
    return found


def plan_folds(
    recipe_name: str, asked: CrossValidation, overrides: Sequence[str], parse: Callable[[Run, Sequence[str]], Run]
) -> FoldPlan:
    """The trainings that are asked for. ValueError: an option has no effect, or the data are no folds.

    overrides: words of the command line; parse: applies them to a run.
    """
    refuse_options(overrides, TAKEN)
    start, words = start_of(recipe_name, overrides, data_is_given=True)
    run = parse(start, words)
    if run.data.path is None:
        raise ValueError("data.path must be given: the folder of jobs/write_shards.py --folds K --out")
    folds, data = len(fold_manifests(run.data.path)), run.data.path
    name, called = f"{FOLDS}{run.run_name or run.recipe.name}", run.run_name or run.recipe.network

    def of(fold: int, seed: int) -> Run:
        mine = {"data": run.data.model_copy(update={"path": below(data, f"{FOLD}{fold}")}), "seed": seed}
        place = {"storage": below(run.storage_path, name), "run_name": f"{called}.{FOLD}{fold}.s{seed}"}
        return run.model_copy(update=mine | place | {"promote": False})

    runs = tuple((fold, of(fold, seed)) for seed in asked.seeds for fold in range(1, folds + 1))
    return FoldPlan(name, run.storage_path, run.recipe.name, data, folds, asked.seeds, runs)


def cross_validate(plan: FoldPlan) -> CrossValidated:
    """Train what is not finished yet, one after another; the same call goes on after a stop."""
    shown = Folder(plan.data).shown
    say(f"{plan.name}: {plan.folds} folds of {shown}, seeds {', '.join(map(str, plan.seeds))}: {len(plan.runs)} runs")
    say_if_away()
    key = below(plan.place, plan.name)
    parent = mlflow_runs.start_sweep(plan.name, plan.place, {"data": shown, "seeds": list(plan.seeds)})
    status = "FAILED"
    try:
        trained = tuple(FoldOutcome(fold=f, seed=run.seed, outcome=fit(run, parent=parent)) for f, run in plan.runs)
        found = summed(plan, trained)
        errors = {f"top1_error/{t.outcome.run}": t.outcome.top1_error for t in trained}
        mlflow_runs.summarise(key, errors | {"top1_error": found.top1_error}, fold_table(found))
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        mlflow_runs.close(key, status)
    return found


def summed(plan: FoldPlan, trained: tuple[FoldOutcome, ...]) -> CrossValidated:
    """The errors by fold, by seed and of all images."""
    by_fold = [[t.outcome.top1_error for t in trained if t.fold == fold] for fold in range(1, plan.folds + 1)]
    return CrossValidated(
        recipe=plan.recipe,
        data=Folder(plan.data).shown,
        folds=plan.folds,
        seeds=plan.seeds,
        top1_error=_of_images(trained),
        by_fold=tuple(map(statistics.fmean, by_fold)),
        by_seed=tuple(_of_images([t for t in trained if t.seed == seed]) for seed in plan.seeds),
        trained=trained,
    )


def _of_images(trained: Sequence[FoldOutcome]) -> float:
    """The error of all validation images together; a fold weighs what it holds."""
    images = sum(t.outcome.examples for t in trained)
    return sum(t.outcome.top1_error * t.outcome.examples for t in trained) / images


def fold_table(found: CrossValidated) -> str:
    """Each training, and the mean and standard deviation over folds and over seeds."""
    rows = [
        (
            str(t.fold),
            str(t.seed),
            f"{t.outcome.examples:,}",
            f"{t.outcome.top1_error:.2f}",
            f"{t.outcome.train_error:.2f}",
        )
        for t in sorted(found.trained, key=lambda t: (t.fold, t.seed))
    ]
    lines = text_table("rrrrr", ("fold", "seed", "images", "top-1 error %", "training error %"), rows)
    lines.append(f"{found.folds} folds: {spread(found.by_fold)} %, mean ± standard deviation over folds")
    images = sum(t.outcome.examples for t in found.trained if t.seed == found.seeds[0])
    lines.append(f"all {images:,} images, each by networks that never trained on it: {found.top1_error:.2f} %")
    if len(found.seeds) > 1:
        lines.append(f"{len(found.seeds)} seeds: {spread(found.by_seed)} %, mean ± standard deviation over seeds")
    lines.append("The folds share training images: their deviation is no error of the mean.")
    return "\n".join(["", f"{found.recipe} on {found.data}", *lines])
