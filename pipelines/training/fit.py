"""fit(run) -> TrainingOutcome: prepares the data, runs the worker loop on Ray Train, tracks it, registers the model."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import provenance
from pipelines.cluster import connection
from pipelines.cluster.planning.known_nodes import known_nodes, wishes
from pipelines.cluster.planning.node_engines import engines_shown, jpeg_engines
from pipelines.cluster.planning.resource_plan import ResourcePlan, described, plan_training
from pipelines.cluster.planning.waiting import RoomWatch
from pipelines.cluster.shared_places import SharedPlace, require_everywhere
from pipelines.models import initial_weights
from pipelines.progress import console
from pipelines.run import Run
from pipelines.shards.manifest import MANIFEST
from pipelines.storage import Folder
from pipelines.stream.augmentation import shortage
from pipelines.stream.example_order import Order, default_window
from pipelines.tracking import mlflow_runs, model_registry
from pipelines.training import run_summary
from pipelines.training.guards.run_holder import RunHolder
from pipelines.training.guards.starting_point import require_start
from pipelines.training.mlflow_recorder import Recorder
from pipelines.training.ray_trainer import run_workers
from pipelines.training.run_data import RunData, WorkerData, load_feed, open_source
from pipelines.training.run_folder import RunFolder, TrainingOutcome
from resnet.evaluation.final_test import FINAL_TEST
from resnet.evaluation.views import default_protocol
from resnet.training.finetuning.epoch_choice import chosen

if TYPE_CHECKING:
    from resnet.training.checkpoint import Progress

FEW = 32  # images of a pass: He et al. had 32 on each of eight GPUs


def fit(
    run: Run,
    *,
    feed: WorkerData | None = None,
    show: bool = True,
    parent: str | None = None,
    callbacks: tuple[Any, ...] = (),
) -> TrainingOutcome:
    """Train to the end and return what came out; goes on where an earlier call with the same run stopped.

    feed: the data, if a sweep has loaded it already; show: progress on stderr; parent: MLflow run of the sweep;
    callbacks: Ray Train's. ValueError for a wrong setting, before the cluster is touched where that is possible;
    RuntimeError if the training fails for good.
    """
    source, run = open_source(run), initial_weights.identified(run)
    place = source.place(run)
    if feed is None and place.read("outcome.json") is None:
        if (away := mlflow_runs.check_tracking()) is not None:
            _say(show, f"{away}; the training goes on, and what is missed is recorded later")
        elif run.promote and run.model_name is not None:
            model_registry.require_task(mlflow_runs.client(), run.model_name, model_registry.TASK)
    if (finished := place.check()) is not None and finished.mlflow_run is not None:
        _say(show, f"{run.name} is finished already: {place.folder.shown}")
        return finished
    if place.is_new:
        require_start(run, source.manifest.classes, source.train.examples)
    with RunHolder(place.folder, partial(_say, show)).held() as holder:
        finished = place.check()  # it may have ended while its holder was waited for
        if finished is not None:
            _say(show, f"{run.name} is finished already: {place.folder.shown}")
            return finished if finished.mlflow_run else _record(run, source, place, finished, parent)
        run = run.model_copy(update={"resume": place.start_of()})
        return _train(run, source, place, holder, feed, show, parent, callbacks)


def _train(
    run: Run,
    source: RunData,
    place: RunFolder,
    holder: RunHolder,
    feed: WorkerData | None,
    show: bool,
    parent: str | None,
    callbacks: tuple[Any, ...],
) -> TrainingOutcome:
    """Train on the cluster, and record it."""
    began = time.monotonic()
    if (sentence := source.begin(run)) is not None:
        _say(show, f"{run.name} begins with {run.init}; {sentence}")
    connection.connect()
    shared = SharedPlace.of("storage", place.folder, holder.file)
    shared += SharedPlace.of("data.path", Folder(source.uri), MANIFEST)
    require_everywhere(shared)
    plan = plan_training(known_nodes(), wishes(run))
    data = run.data.model_copy(update={"decode": plan.decode})
    run = run.model_copy(update={"scaling": plan.scaling, "data": data})
    run = Run(**run.model_dump())  # the batch must divide among the workers now known
    _say(show, _plan(run, source, plan))
    if note := shortage(source.manifest.encoding.shorter_side, run.recipe.images):
        _say(show, note)
    recorder = Recorder(run, source.tags, parent, source.dataset)
    try:
        with console.Watch(run.name, recorder.see, show=show):
            feed = feed or load_feed(run, source)
            watch = RoomWatch(plan.short, run.scaling.wait_minutes, partial(_say, show))
            look = watch.look if connection.may_grow() else lambda: None  # nobody else is on a private Ray
            checkpoint, ended = run_workers(run, feed, shared, callbacks, lambda: holder.lost or look())
        outcome = _outcome(run, source, place, checkpoint, ended, time.monotonic() - began)
        gained = _recorded(recorder, source, place, outcome, ended)
    except BaseException as error:
        recorder.fail("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    outcome = outcome.model_copy(update=gained)
    place.write("outcome.json", outcome.model_dump(mode="json"))
    return outcome


def _recorded(
    recorder: Recorder, source: RunData, place: RunFolder, outcome: TrainingOutcome, ended: Progress
) -> dict[str, str]:
    """Record the end of a run in MLflow; what the outcome gains by it."""
    recorder.rows(ended.rows)
    kept = ended.model_dump(mode="json", include={"conditions", "norms"})
    records = {f"{name}.json": {name: content} for name, content in kept.items()}
    if (test := place.read(FINAL_TEST)) is not None:
        records[FINAL_TEST] = test
    protocol = default_protocol(place.run.recipe.images)
    judged = model_registry.Judged.by_error(
        outcome.top1_error,
        outcome.examples,
        source.sha256,
        protocol,
        before=source.sha256_before,
        name=source.dataset.name,
    )
    with tempfile.TemporaryDirectory(prefix="curves-") as folder:
        figure = run_summary.curves(outcome.run, place.run.recipe.network, ended.rows, Path(folder))
        kept_at = run_summary.keep_beside(place.folder, figure)
        return ({"curves": kept_at} if kept_at else {}) | recorder.finish(outcome, str(figure), judged, records)


def _record(
    run: Run, source: RunData, place: RunFolder, outcome: TrainingOutcome, parent: str | None
) -> TrainingOutcome:
    """Record a finished run in MLflow, which could not be reached when it ended."""
    from pipelines.models.checkpoint_store import CheckpointStore

    found = CheckpointStore.of(run).latest()
    if found is None:
        return outcome
    recorder = Recorder(run, source.tags, parent, source.dataset, time.time() - outcome.seconds)
    outcome = outcome.model_copy(update=_recorded(recorder, source, place, outcome, found[1].progress))
    place.write("outcome.json", outcome.model_dump(mode="json"))
    return outcome


def _outcome(
    run: Run, source: RunData, place: RunFolder, checkpoint: str, ended: Progress, seconds: float
) -> TrainingOutcome:
    rows, last, best = ended.rows, ended.rows[-1], chosen(ended.rows, run.recipe.selection)
    assert best.top1_error is not None  # the end of a training is always evaluated
    assert best.top5_error is not None
    test = place.read(FINAL_TEST)
    train_seconds = sum(row.seconds for row in rows)
    return TrainingOutcome(
        run=run.name,
        recipe=run.recipe.name,
        seed=run.seed,
        top1_error=best.top1_error,
        top5_error=best.top5_error,
        train_error=ended.train_error or last.train_error,
        examples=source.val.examples,
        epochs=last.step / run.recipe.steps_per_epoch(source.train.examples),
        steps=last.step,
        seconds=seconds,
        train_seconds=train_seconds,
        cpu_seconds=sum(row.cpu_seconds for row in rows),
        images_per_second=sum(row.images_per_second * row.seconds for row in rows) / train_seconds,
        data=source.uri,
        checkpoint=checkpoint,
        commit=provenance.git_commit(),
        hardware=ended.conditions[-1].hardware if ended.conditions else "unknown",
        final_train_error=test["train_error"] if test else None,
        final_top1_error=test["top1_error"] if test else None,
        chosen_epoch=None if run.recipe.selection.by == "last" else best.epoch,
        init=run.init,
        init_sha256=run.init_sha256,
    )


def _say(show: bool, text: str) -> None:
    if show:
        console.say(text)


def _plan(run: Run, source: RunData, plan: ResourcePlan) -> str:
    """The announcement of a training, and where it runs, before anything starts."""
    up = [node for node in plan.nodes if node.up]
    lines = [_work(run, source), *([described(plan.nodes)] if len(plan.nodes) > 1 else []), plan.shown]
    if run.recipe.images.policy != "pad-crop" and up:
        lines.append(f"JPEGs are decoded by {engines_shown(jpeg_engines(len(up)))}")
        lines += _twice(run, source)
    if run.recipe.bn_batch is None and run.part < FEW <= run.recipe.optim.batch_size:
        lines.append(f"batch norm normalises over {run.part} images, which costs accuracy below {FEW}")
    return "\n".join(lines)


def _twice(run: Run, source: RunData) -> list[str]:
    """A note where workers read the same row groups."""
    batch, workers = run.recipe.optim.batch_size, run.scaling.most
    order = Order(source.train.rows, batch, run.data.window or default_window(batch), run.seed)
    if (readers := order.readers(workers)) == 1:
        return []
    return [
        f"each row group is read by {readers} of {workers} workers, as {order.groups_per_window} are shuffled "
        f"together; --data.window {workers} reads each once, in another order"
    ]


def _work(run: Run, source: RunData) -> str:
    return run_summary.work_ahead(run, source.train.examples, source.val.examples, len(source.manifest.classes))
