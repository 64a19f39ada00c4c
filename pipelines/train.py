"""fit(run) -> Outcome: prepares the data, runs the worker loop on Ray Train, tracks it, registers the model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import cluster, progress, report, stream, tracking
from pipelines.feed import Feed
from pipelines.manifest import Manifest
from pipelines.run import Run, home
from pipelines.storage import Folder
from resnet.hardware import describe
from resnet.pixels import pixel_statistics
from resnet.recipe import Frozen, Recipe

if TYPE_CHECKING:
    from resnet.checkpoint import EpochRow


SAVING = 15.0  # seconds that a stopped run waits for its workers to save


class Outcome(Frozen):
    """What a training run gave. top1_error: percent of `examples` validation images at the end of the training."""

    run: str
    recipe: str
    seed: int
    top1_error: float
    top5_error: float
    train_error: float
    examples: int
    epochs: float
    steps: int
    seconds: float
    images_per_second: float
    data: str
    checkpoint: str
    commit: str = "unknown"
    hardware: str = "unknown"
    mlflow_run: str | None = None
    model_version: str | None = None
    champion: str | None = None
    curves: str | None = None


@dataclass(frozen=True)
class Source:
    """The data of a run: where the shards are, their two splits, and a fingerprint of the manifest."""

    uri: str
    manifest: Manifest
    train: stream.Split
    val: stream.Split

    @property
    def sha256(self) -> str:
        """Of the manifest, and so of every shard that it names."""
        return hashlib.sha256(self.manifest.model_dump_json().encode()).hexdigest()


def open_source(run: Run) -> Source:
    """Find the shards of a run; the embedded digits are written on first use. ValueError before any work is done."""
    uri = shards(run)
    manifest, train = stream.open_split(uri, "train")
    source = Source(uri, manifest, train, stream.Split.of(manifest, uri, "val"))
    for split in (source.train, source.val):
        if split.examples == 0:
            raise ValueError(f"{uri} must have {split.name} images, got none")
    run.recipe.total_steps(train.examples)
    if run.recipe.ema is not None:
        raise ValueError(f"recipe.ema must be None: the engine does not average weights yet, got {run.recipe.ema}")
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
    place = Place(run, source.sha256)
    if (finished := place.claim()) is not None:
        _say(show, f"{run.name} is finished already: {place.folder.uri}")
        return finished
    began = time.monotonic()
    resources = cluster.connect()
    run = run.model_copy(update={"scaling": run.scaling.resolve(resources.get("CPU", 1), resources.get("GPU", 0))})
    run = Run(**run.model_dump())  # the batch must divide among the workers now known
    _say(show, _plan(run, source))
    recorder = tracking.Recorder(run, {"data": source.uri, "data_sha256": source.sha256}, parent)
    try:
        with progress.Watch([run.name], recorder.see, show=show):
            checkpoint, rows = _train(run, feed or load_feed(run, source), callbacks)
        recorder.rows(rows)
        outcome = _outcome(run, source, checkpoint, rows, time.monotonic() - began)
        gained = recorder.finish(outcome, report.curves(run.name, rows, home()), source.sha256)
    except BaseException as error:
        recorder.fail("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    outcome = outcome.model_copy(update=gained)
    place.write("outcome.json", outcome.model_dump(mode="json"))
    return outcome


def _outcome(run: Run, source: Source, checkpoint: str, rows: Sequence[EpochRow], seconds: float) -> Outcome:
    last = rows[-1]
    return Outcome(
        run=run.name,
        recipe=run.recipe.name,
        seed=run.seed,
        top1_error=last.top1_error,
        top5_error=last.top5_error,
        train_error=last.train_error,
        examples=source.val.examples,
        epochs=last.step / (source.train.examples // run.recipe.optim.batch_size),
        steps=last.step,
        seconds=seconds,
        images_per_second=sum(r.images_per_second * r.seconds for r in rows) / sum(r.seconds for r in rows),
        data=source.uri,
        checkpoint=checkpoint,
        commit=tracking.git_commit(),
        hardware=describe(),
    )


def shards(run: Run) -> str:
    """Where the run's shards are. The embedded digits are written on first use."""
    if run.data.path is not None:
        return run.data.path if "://" in run.data.path else str(Path(run.data.path).expanduser().resolve())
    from pipelines.shards import write_shards
    from pipelines.sources import Source as Origin

    out = Path(home()) / "data" / "digits"
    if not (out / "manifest.json").exists():
        write_shards(Origin(kind="digits"), str(out), workers=0)
    return str(out)


def _say(show: bool, text: str) -> None:
    if show:
        print(text, file=sys.stderr, flush=True)


def _plan(run: Run, source: Source) -> str:
    scaling, train = run.scaling, source.train.examples
    return (
        f"{run.name}: {train:,} training and {source.val.examples:,} validation images of "
        f"{len(source.manifest.classes)} classes, {run.recipe.total_steps(train):,} steps of "
        f"{run.recipe.optim.batch_size} images, {scaling.workers} worker{'s' if scaling.workers != 1 else ''} on "
        f"{'GPU' if scaling.gpu else f'CPU with {scaling.threads} thread(s) each'}"
    )


class Place:
    """The folder of a run: what was asked for lies beside its checkpoints, so that two runs never mix."""

    def __init__(self, run: Run, data: str) -> None:
        self.folder = Folder(f"{run.storage_path}/{run.name}")
        # Only these decide the trained network; workers, tracking and the like may change from one start to the next.
        self.asked = {"recipe": run.recipe.model_dump(mode="json"), "seed": run.seed, "data_sha256": data}

    def claim(self) -> Outcome | None:
        """Write down what is asked for, or check that it is what the folder was made for. The outcome, if finished."""
        asked = self.read("asked.json")
        if asked is not None:  # fields that a newer version has added have their defaults in an older run
            asked["recipe"] = Recipe(**asked["recipe"]).model_dump(mode="json")
        if asked is None:
            self.write("asked.json", self.asked)
        elif asked != self.asked:
            before, now = dict(tracking.flat(asked)), dict(tracking.flat(self.asked))
            field = next(k for k in {**now, **before} if before.get(k) != now.get(k))
            raise ValueError(
                f"{field} must be {before.get(field)} as in the run that {self.folder.uri} holds, "
                f"got {now.get(field)}; for another run give another --storage"
            )
        finished = self.read("outcome.json")
        try:
            return None if finished is None else Outcome(**finished)
        except ValueError as error:
            raise ValueError(f"{self.folder.uri}/outcome.json: {error}") from None

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the folder, or None."""
        try:
            return json.loads(self.folder.read(name))
        except FileNotFoundError:
            return None

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON file into the folder; whole, or not at all. ValueError if that cannot be."""
        try:
            with self.folder.writing(name) as file:
                file.write(json.dumps(value, indent=2).encode())
        except OSError as error:
            raise ValueError(f"storage must be a folder or bucket that can be written, got {error}") from None


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
    return Feed(train, val, source.manifest.classes, {"mean": mean, "std": std}, resident)


@contextlib.contextmanager
def _saving_first(run: str) -> Iterator[None]:
    """Within: SIGTERM (`ray job stop`, a scheduler) lets the workers save their state, then ends like Ctrl-C."""

    def save(*_: object) -> None:
        progress.ask_to_save(run)
        before, deadline = progress.look(run), time.monotonic() + SAVING
        while before and time.monotonic() < deadline:
            now = progress.look(run)
            if now and now.saved != before.saved:
                break
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


def _train(run: Run, feed: Feed, callbacks: tuple[Any, ...]) -> tuple[str, Sequence[EpochRow]]:
    """Run the workers to the end; the last checkpoint's place and the rows of all epochs."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    from pipelines.checkpoints import Checkpoints
    from pipelines.worker import train_worker

    scaling, place = run.scaling, f"{run.storage_path}/{run.name}"
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"run": run.model_dump_json(), "feed": feed, "report": bool(callbacks)},
        scaling_config=ScalingConfig(
            num_workers=scaling.workers or 1,
            use_gpu=bool(scaling.gpu),
            resources_per_worker={"CPU": scaling.cpus_per_worker or 1} | ({"GPU": 1} if scaling.gpu else {}),
        ),
        run_config=RunConfig(
            name=run.name,
            storage_path=f"{place}/ray",  # Ray's own records; the checkpoints are pipelines/checkpoints.py's
            failure_config=FailureConfig(max_failures=scaling.retries),
            callbacks=list(callbacks),
        ),
    )
    trouble = None
    try:
        with _saving_first(run.name):
            trainer.fit()
    except TrainingFailedError as error:
        trouble = error
    if (reason := progress.failure(run.name)) is not None:
        raise RuntimeError(f"{run.name} failed: {reason}") from trouble
    if trouble is not None:
        raise RuntimeError(f"{run.name} failed after {scaling.retries} restarts: {trouble}") from trouble
    checkpoints = Checkpoints(place, run.checkpoints.keep)
    found = checkpoints.latest()
    if found is None:
        raise RuntimeError(f"{run.name} ended without a checkpoint in {place}")
    name, checkpoint = found
    return checkpoints.path(name), checkpoint.progress.rows
