"""fit(run) -> Outcome: prepares the data, runs the worker loop on Ray Train, tracks it, registers the model."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import cluster, progress, report, stream, tracking
from pipelines.feed import Feed
from pipelines.manifest import Manifest
from pipelines.pictures import shortage
from pipelines.place import FINAL_TEST, Outcome, Place
from pipelines.recorder import Recorder
from pipelines.run import Run, home
from resnet import memory
from resnet.pixels import pixel_statistics
from resnet.views import default_protocol

if TYPE_CHECKING:
    from resnet.checkpoint import Progress


SAVING = 15.0  # seconds that a stopped run waits for its workers to save


@dataclass(frozen=True)
class Source:
    """The data of a run: where the shards are, their two splits, and a fingerprint of the manifest.

    holdout: images of the manifest's training split that are val in place of the manifest's own.
    """

    uri: str
    manifest: Manifest
    train: stream.Split
    val: stream.Split
    holdout: int = 0

    @property
    def sha256(self) -> str:
        """Of the classes and every shard, wherever they lie; another with a holdout, as its errors are no test's."""
        return self.manifest.fingerprint(self.holdout)

    @property
    def sha256_before(self) -> str:
        """What runs before 2026-11-24 have noted of the same data."""
        return self.manifest.fingerprint_before(self.holdout)

    @property
    def tags(self) -> dict[str, str]:
        """What MLflow's run says of the data."""
        return {"data": self.uri, "data_sha256": self.sha256}

    @property
    def dataset(self) -> tracking.RunDataset:
        """The data as MLflow's page shows them; the name is the folder's."""
        name = self.uri.rstrip("/").rpartition("/")[2].partition("?")[0]
        sizes = {"train": self.train.examples, "val": self.val.examples, "classes": len(self.manifest.classes)}
        held = f", {self.holdout} held out" if self.holdout else ""
        return tracking.RunDataset(f"{name}{held}", self.uri, self.sha256, {"num_rows": self.train.examples} | sizes)

    def place(self, run: Run) -> Place:
        """The folder of a run on these data."""
        return Place(run, self.sha256, self.sha256_before)


def open_source(run: Run) -> Source:
    """Find the shards of a run; the embedded digits are written on first use. ValueError before any work is done."""
    uri = shards(run)
    manifest, train = stream.open_split(uri, "train")
    val, holdout = stream.Split.of(manifest, uri, "val"), run.data.holdout
    if holdout:
        if holdout >= train.examples:
            raise ValueError(f"data.holdout must leave training images, got {holdout} of {train.examples}")
        train, val = train.parted(holdout)
    source = Source(uri, manifest, train, val, holdout)
    for split in (source.train, source.val):
        if split.examples == 0:
            raise ValueError(f"{uri} must have {split.name} images, got none")
    run.recipe.total_steps(train.examples)
    return source


def fit(
    run: Run,
    *,
    feed: Any = None,
    show: bool = True,
    parent: str | None = None,
    callbacks: tuple[Any, ...] = (),
) -> Outcome:
    """Train to the end and return what came out; goes on where an earlier call with the same run stopped.

    feed: the data, if a sweep has loaded it already; show: progress on stderr; parent: MLflow run of the sweep;
    callbacks: Ray Train's. ValueError for a wrong setting, before the cluster is touched where that is possible;
    RuntimeError if the training fails for good.
    """
    source = open_source(run)
    place = source.place(run)
    if feed is None and place.read("outcome.json") is None and (away := tracking.look()) is not None:
        _say(show, f"{away}; the training goes on, and what is missed is recorded later")
    if (finished := place.claim()) is not None:
        if finished.mlflow_run is None:
            finished = _record(run, source, place, finished, parent)
        _say(show, f"{run.name} is finished already: {place.folder.uri}")
        return finished
    began = time.monotonic()
    resources = cluster.connect()
    scaling = run.scaling.resolve(resources.get("CPU", 1), resources.get("GPU", 0), run.recipe.passes)
    data = run.data.resolve(cluster.spare_nodes(scaling.most, bool(scaling.gpu)))
    run = run.model_copy(update={"scaling": scaling, "data": data})
    run = Run(**run.model_dump())  # the batch must divide among the workers now known
    _say(show, _plan(run, source))
    if note := shortage(source.manifest.encoding.shorter_side, run.recipe.images):
        _say(show, note)
    recorder = Recorder(run, source.tags, parent, source.dataset)
    try:
        with progress.Watch(run.name, recorder.see, show=show):
            checkpoint, ended = _train(run, feed or load_feed(run, source), callbacks)
        outcome = _outcome(run, source, place, checkpoint, ended, time.monotonic() - began)
        gained = _recorded(recorder, source, place, outcome, ended)
    except BaseException as error:
        recorder.fail("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    outcome = outcome.model_copy(update=gained)
    place.write("outcome.json", outcome.model_dump(mode="json"))
    return outcome


def _recorded(recorder: Recorder, source: Source, place: Place, outcome: Outcome, ended: Progress) -> dict[str, str]:
    """Record the end of a run in MLflow; what the outcome gains by it."""
    recorder.rows(ended.rows)
    figure = report.curves(outcome.run, ended.rows, home())
    kept = ended.model_dump(mode="json", include={"conditions", "norms"})
    records = {f"{name}.json": {name: content} for name, content in kept.items()}
    if (test := place.read(FINAL_TEST)) is not None:
        records[FINAL_TEST] = test
    protocol = default_protocol(recorder.run.recipe.images)
    judged = tracking.Judged.by_error(
        outcome.top1_error,
        outcome.examples,
        source.sha256,
        protocol,
        before=source.sha256_before,
        name=source.dataset.name,
    )
    return recorder.finish(outcome, figure, judged, records)


def _record(run: Run, source: Source, place: Place, outcome: Outcome, parent: str | None) -> Outcome:
    """Record a finished run in MLflow, which could not be reached when it ended."""
    from pipelines.checkpoints import Checkpoints

    found = Checkpoints.of(run).latest()
    if found is None:
        return outcome
    recorder = Recorder(run, source.tags, parent, source.dataset, time.time() - outcome.seconds)
    outcome = outcome.model_copy(update=_recorded(recorder, source, place, outcome, found[1].progress))
    place.write("outcome.json", outcome.model_dump(mode="json"))
    return outcome


def _outcome(run: Run, source: Source, place: Place, checkpoint: str, ended: Progress, seconds: float) -> Outcome:
    rows, last = ended.rows, ended.rows[-1]
    assert last.top1_error is not None  # the end of a training is always evaluated
    assert last.top5_error is not None
    test = place.read(FINAL_TEST)
    train_seconds = sum(row.seconds for row in rows)
    return Outcome(
        run=run.name,
        recipe=run.recipe.name,
        seed=run.seed,
        top1_error=last.top1_error,
        top5_error=last.top5_error,
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
        commit=tracking.git_commit(),
        hardware=ended.conditions[-1].hardware if ended.conditions else "unknown",
        final_train_error=test["train_error"] if test else None,
        final_top1_error=test["top1_error"] if test else None,
    )


def shards(run: Run) -> str:
    """Where the run's shards are. The embedded digits are written on first use."""
    if run.data.path is not None:
        return run.data.path
    from pipelines.shards import write_shards
    from pipelines.sources import Source as Origin

    out = Path(home()) / "data" / "digits"
    if not (out / "manifest.json").exists():
        write_shards(Origin(kind="digits"), str(out), workers=0)
    return str(out)


def _say(show: bool, text: str) -> None:
    if show:
        progress.say(text)


def _plan(run: Run, source: Source) -> str:
    scaling, train = run.scaling, source.train.examples
    return (
        f"{run.name}: {train:,} training and {source.val.examples:,} validation images of "
        f"{len(source.manifest.classes)} classes, {run.recipe.total_steps(train):,} steps of "
        f"{run.recipe.optim.batch_size} images, {scaling.workers} worker{'s' if scaling.most != 1 else ''} on "
        f"{'GPU' if scaling.gpu else f'CPU with {scaling.threads} thread(s) each'}"
    )


def load_feed(run: Run, source: Source) -> Feed:
    """What workers need of the data; small sets are decoded here, once, into the object store. Needs a cluster."""
    import ray

    images, train, val = run.recipe.images, source.train, source.val
    resident = None
    if images.policy == "pad-crop":
        limit = run.data.memory_limit * 2**20
        splits = {split.name: stream.load_resident(split, images.size, limit) for split in (train, val)}
        sample = splits["train"].images
        resident = {name: ray.put(tuple(split)) for name, split in splits.items()}
    else:
        sample = stream.sample(train, images)
    mean, std = pixel_statistics(sample, images.mean == "per-pixel")
    return Feed(
        train, val, source.manifest.classes, {"mean": mean, "std": std}, resident, source.manifest.encoding.grey_range
    )


@contextlib.contextmanager
def saving_first(runs: Iterable[str]) -> Iterator[None]:
    """Within: SIGTERM (`ray job stop`, a scheduler) lets the workers save their state, then ends like Ctrl-C."""

    def save(*_: object) -> None:
        before = {
            run: status.saved for run in tuple(runs) if (status := progress.look(run)) and status.step < status.total
        }
        for run in before:
            progress.ask_to_save(run)
        deadline = time.monotonic() + SAVING
        while before and time.monotonic() < deadline:
            before = {run: old for run, old in before.items() if (s := progress.look(run)) and s.saved == old}
            time.sleep(0.1)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.signal(signal.SIGTERM, save)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _train(run: Run, feed: Feed, callbacks: tuple[Any, ...]) -> tuple[str, Progress]:
    """Run the workers to the end; the last checkpoint's place and progress."""
    from ray.exceptions import RayActorError
    from ray.train.v2.api.exceptions import TrainingFailedError

    from pipelines.checkpoints import Checkpoints

    trouble = None
    with saving_first([run.name]):
        for _ in range(1 + run.scaling.retries):
            try:
                _trainer(run, feed, callbacks).fit()
                trouble = None
            except TrainingFailedError as error:  # it has restarted the workers as often as it may
                trouble = error
            except RayActorError as error:  # Ray Train's controller died, and its workers with it
                trouble = error
                if _free_places():
                    continue
            break
    if (reason := progress.failure(run.name)) is not None:
        raise RuntimeError(f"{run.name} failed: {reason}") from trouble
    if trouble is not None:
        raise RuntimeError(f"{run.name} failed after {run.scaling.retries} restarts: {trouble}") from trouble
    checkpoints = Checkpoints.of(run)
    found = checkpoints.latest()
    if found is None:
        raise RuntimeError(f"{run.name} ended without a checkpoint in {run.folder}")
    name, checkpoint = found
    return checkpoints.path(name), checkpoint.progress


def _free_places() -> bool:
    """Remove the placement groups that a lost controller left, which hold the CPUs that the next one needs.

    Ray Train's own cleaner asks the dashboard whether the controller lives, and waits for ever where there is none.
    A trial of a sweep leaves them: they cannot be told from those of the other trials. Whether they are gone.
    """
    import ray
    from ray._raylet import PlacementGroupID  # pyright: ignore[reportAttributeAccessIssue]  compiled
    from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

    here = ray.get_runtime_context()
    if here.get_actor_id() is not None:
        return False
    for name, found in placement_group_table().items():
        if name.endswith(here.get_job_id()) and found["state"] != "REMOVED":  # an id ends with that of its job
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))
    return True


def _trainer(run: Run, feed: Feed, callbacks: tuple[Any, ...]) -> Any:
    """Ray's TorchTrainer of a run: its workers go on from the newest checkpoint."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    from pipelines.worker import train_worker

    scaling = run.scaling
    return _lean_trainer()(
        train_worker,
        train_loop_config={"run": run.model_dump_json(), "feed": feed, "report": bool(callbacks)},
        scaling_config=ScalingConfig(
            num_workers=(scaling.least, scaling.most) if scaling.is_elastic else scaling.most,
            use_gpu=bool(scaling.gpu),
            resources_per_worker={"CPU": scaling.cpus_per_worker or 1}
            | ({"GPU": scaling.gpus_per_worker or 1} if scaling.gpu else {}),
        ),
        run_config=RunConfig(
            name=run.name,
            storage_path=f"{run.folder}/ray",  # Ray's own records; our checkpoints lie beside
            failure_config=FailureConfig(max_failures=scaling.retries),
            callbacks=list(callbacks),
            # It calls the function in a thread. On a GPU tensors are not the system's business.
            worker_runtime_env={"env_vars": {} if scaling.gpu else memory.KEPT},
        ),
    )


def _lean_trainer() -> Any:
    """TorchTrainer without the three actors that a run does not need; each is a process that a start waits for.

    DatasetManager hands out datasets: ours are made by the workers. PlacementGroupCleaner removes the places of a lost
    controller: _free_places does, but for a trial of a sweep, which keeps it. AutoscalingCoordinator asks for nodes,
    and tells an elastic run of its share of them: not asked where there can be none.
    """
    import ray
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

    is_trial = ray.get_runtime_context().get_actor_id() is not None
    spared = (DatasetsCallback,) if is_trial else (DatasetsCallback, PlacementGroupCleanerCallback)

    class Unasking(FixedScalingPolicy):
        """The same workers always, and no word to an autoscaler."""

        def after_controller_start(self, train_run_context: Any) -> None:
            """Ask for nothing."""

        def _maybe_send_resource_request(self) -> None:
            """Ask for nothing, then or later."""

    class LeanTrainer(TorchTrainer):
        """Ray Train's own in all else."""

        def _create_default_callbacks(self) -> list[Any]:
            return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, spared)]

        def _initialize_and_run_controller(self, **given: Any) -> Any:
            if isinstance(given["scaling_policy"], FixedScalingPolicy) and not cluster.may_grow():
                given["scaling_policy"] = Unasking(self.scaling_config)
            return super()._initialize_and_run_controller(**given)

    return LeanTrainer
