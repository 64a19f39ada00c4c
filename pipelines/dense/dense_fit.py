"""fit_dense(run) -> DenseOutcome: as fit(run) of a classification, for detectors and segmenters."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import provenance
from pipelines.cluster import connection
from pipelines.cluster.planning.known_nodes import known_nodes
from pipelines.cluster.planning.resource_plan import Wishes, described, plan_training
from pipelines.cluster.planning.waiting import RoomWatch
from pipelines.cluster.shared_places import SharedPlace, require_everywhere
from pipelines.dense.dense_data import DenseSource, open_dense
from pipelines.dense.dense_records import DenseOutcome, DenseRecorder, JudgedByQuality, dense_curves
from pipelines.dense.dense_run import DenseData, DenseRun
from pipelines.dense.initial_backbone import begin_with_backbone, identified_backbone
from pipelines.progress import console
from pipelines.shards.manifest import MANIFEST
from pipelines.storage import Folder
from pipelines.tracking import mlflow_runs, model_registry
from pipelines.training.guards.run_holder import RunHolder
from pipelines.training.ray_trainer import work_to_the_end
from pipelines.training.run_summary import keep_beside, work_ahead
from resnet.dense.dense_recipe import dense_recipe

if TYPE_CHECKING:
    from resnet.dense.dense_checkpoint import DenseProgress

ASKED, DONE = "asked.json", "outcome.json"


def fit_dense(run: DenseRun, *, show: bool = True) -> DenseOutcome:
    """Train to the end and return what came out; goes on where an earlier call with the same run stopped.

    ValueError for a wrong setting, before the cluster is touched where that is possible; RuntimeError if the training
    fails for good.
    """
    source, run = open_dense(run), identified_backbone(run)
    say = console.say if show else lambda _: None
    if (finished := _finished(run, source)) is None:
        if (away := mlflow_runs.check_tracking()) is not None:
            say(f"{away}; the training goes on, and what is missed is recorded later")
        elif run.promote and run.model_name is not None:
            model_registry.require_task(mlflow_runs.client(), run.model_name, run.recipe.task)
        with RunHolder(Folder(run.folder), say).held() as holder:
            finished = _finished(run, source)  # it may have ended while its holder was waited for
            if finished is None:
                return _train(run, source, holder, show)
    say(f"{run.name} is finished already: {Folder(run.folder).shown}")
    return finished if finished.mlflow_run else _recorded_later(run, source, finished)


def _asked(run: DenseRun, source: DenseSource) -> dict[str, Any]:
    """Settings that decide the trained network; workers and tracking may change from one start to the next."""
    recipe, window = run.recipe.model_dump(mode="json"), {"window": run.data.window}
    known = {"recipe": recipe, "seed": run.seed, "data_sha256": source.sha256, "data": window}
    return known | {"backbone_sha256": run.backbone_sha256}


def _finished(run: DenseRun, source: DenseSource) -> DenseOutcome | None:
    """The outcome, if the run is finished. ValueError: its folder holds another run, or one that must not go on."""
    from pipelines.dense.dense_saving import DenseStore

    place = Folder(run.folder)
    if (known := _read(place, ASKED)) is None:
        return None
    # Fields that a newer version has added have their defaults in an older run.
    known["recipe"] = dense_recipe(known["recipe"]).model_dump(mode="json")
    known.setdefault("data", {"window": DenseData.model_fields["window"].default})
    before, now = dict(mlflow_runs.flat(known)), dict(mlflow_runs.flat(_asked(run, source)))
    if before != now:
        field = next(k for k in {**now, **before} if before.get(k) != now.get(k))
        raise ValueError(
            f"{field} must be {before.get(field)} as in the run that {place.shown} holds, got {now.get(field)}; for "
            "another run give another --name or --storage"
        )
    if run.resume == "never" and (names := DenseStore.of_dense(run).names()):
        raise ValueError(f"resume must be auto where checkpoints are, {place.shown} holds {names[-1]}, got never")
    outcome = _read(place, DONE)
    return None if outcome is None else DenseOutcome(**outcome)


def _read(place: Folder, name: str) -> dict[str, Any] | None:
    try:
        return json.loads(place.read(name))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write(place: Folder, name: str, value: dict[str, Any]) -> None:
    try:
        with place.writing(name) as file:
            file.write(json.dumps(value, indent=2).encode())
    except OSError as error:
        raise ValueError(f"storage must be a folder or bucket that can be written, got {error}") from None


def _train(run: DenseRun, source: DenseSource, holder: RunHolder, show: bool) -> DenseOutcome:
    """Train on the cluster, and record it."""
    from pipelines.dense.dense_loop import train_dense_worker

    began, place = time.monotonic(), Folder(run.folder)
    say = console.say if show else lambda _: None
    _write(place, ASKED, _asked(run, source))
    pixels, sentence = begin_with_backbone(run, source)
    say(sentence)
    connection.connect()
    shared = SharedPlace.of("storage", place, holder.file)
    shared += SharedPlace.of("data.path", Folder(source.uri), MANIFEST)
    require_everywhere(shared)
    plan = plan_training(known_nodes(), Wishes(run.scaling, run.recipe.optim.batch_size, "worker", False))
    fields = run.model_dump() | {"scaling": plan.scaling.model_dump()}
    run = type(run).model_validate(fields)  # the batch must divide among the workers now known
    if len(plan.nodes) > 1:
        say(described(plan.nodes))
    say(f"{_work(run, source)}\n{plan.shown}")
    recorder = DenseRecorder(run, source.tags, None, source.dataset)
    try:
        with console.Watch(run.name, recorder.see, show=show):
            watch = RoomWatch(plan.short, run.scaling.wait_minutes, say)
            look = watch.look if connection.may_grow() else lambda: None
            feed = source.feed(pixels)
            work_to_the_end(run, feed, train_dense_worker, shared, must_end=lambda: holder.lost or look())
        checkpoint, ended = _last(run)
        outcome = _outcome(run, source, checkpoint, ended, time.monotonic() - began)
        outcome = _recorded(recorder, source, outcome, ended)
    except BaseException as error:
        recorder.fail("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    _write(place, DONE, outcome.model_dump(mode="json"))
    return outcome


def _work(run: DenseRun, source: DenseSource) -> str:
    return work_ahead(run, source.train.examples, source.val.examples, len(source.manifest.classes))


def _last(run: DenseRun) -> tuple[str, DenseProgress]:
    """The last checkpoint's place and progress."""
    from pipelines.dense.dense_saving import DenseStore

    store = DenseStore.of_dense(run)
    if (found := store.latest()) is None:
        raise RuntimeError(f"{run.name} ended without a checkpoint in {run.folder}")
    return store.path(found[0]), found[1].progress


def _outcome(run: DenseRun, source: DenseSource, checkpoint: str, ended: DenseProgress, seconds: float) -> DenseOutcome:
    from pipelines.dense.dense_loop import FINAL_FIGURES

    rows, last = ended.rows, ended.rows[-1]
    figures = _read(Folder(run.folder), FINAL_FIGURES) or {}
    train_seconds = sum(row.seconds for row in rows)
    kept = ("mean_ap", "mean_ap50", "mean_ap75", "mean_iou", "pixel_accuracy")
    return DenseOutcome(
        run=run.name,
        task=run.recipe.task,
        recipe=run.recipe.name,
        seed=run.seed,
        **{name: getattr(last, name) for name in kept},
        by_class={entry["name"]: entry["value"] for entry in figures.get("by_class", ())},
        examples=source.val.examples,
        epochs=last.step / run.recipe.steps_per_epoch(source.train.examples),
        steps=last.step,
        seconds=seconds,
        train_seconds=train_seconds,
        images_per_second=sum(row.images_per_second * row.seconds for row in rows) / train_seconds,
        data=source.uri,
        checkpoint=checkpoint,
        commit=provenance.git_commit(),
        hardware=ended.conditions[-1].hardware if ended.conditions else "unknown",
        backbone=run.backbone,
        backbone_sha256=run.backbone_sha256,
    )


def _recorded(
    recorder: DenseRecorder, source: DenseSource, outcome: DenseOutcome, ended: DenseProgress
) -> DenseOutcome:
    """Record the end of a run in MLflow: the outcome with what it gains by it."""
    recorder.rows(ended.rows)
    protocol = f"{outcome.task} of whole images"
    judged = JudgedByQuality.by_quality(
        outcome.quality, outcome.examples, source.sha256, outcome.task, protocol, source.dataset.name
    )
    with tempfile.TemporaryDirectory(prefix="curves-") as folder:
        figure = dense_curves(outcome.run, outcome.task, ended.rows, Path(folder))
        kept_at = keep_beside(Folder(recorder.run.folder), figure)
        conditions = {"conditions": ended.model_dump(mode="json", include={"conditions"})["conditions"]}
        gained = recorder.finish(outcome, str(figure), judged, {"conditions.json": conditions})
    return outcome.model_copy(update=({"curves": kept_at} if kept_at else {}) | gained)


def _recorded_later(run: DenseRun, source: DenseSource, outcome: DenseOutcome) -> DenseOutcome:
    """Record a finished run in MLflow, which could not be reached when it ended."""
    recorder = DenseRecorder(run, source.tags, None, source.dataset, time.time() - outcome.seconds)
    outcome = _recorded(recorder, source, outcome, _last(run)[1])
    _write(Folder(run.folder), DONE, outcome.model_dump(mode="json"))
    return outcome
