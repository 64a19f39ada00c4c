"""fit(run) -> Outcome: prepares the data, runs the worker loop on Ray Train, tracks it, registers the model."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipelines import cluster, progress, report, stream, tracking
from pipelines.run import Run, home
from pipelines.storage import filesystem
from resnet.recipe import Frozen, sentence


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
    mlflow_run: str | None = None
    model_version: str | None = None
    champion: str | None = None
    curves: str | None = None


def fit(run: Run, *, show: bool = True, parent: str | None = None, callbacks: tuple[Any, ...] = ()) -> Outcome:
    """Train to the end and return what came out; goes on where an earlier call with the same run stopped.

    show: progress on stderr; parent: MLflow run of the sweep; callbacks: Ray Train's. ValueError for a wrong setting,
    before the cluster is touched where that is possible; RuntimeError if the training fails for good.
    """
    uri = shards(run)
    manifest, train = stream.open_split(uri, "train")
    _, val = stream.open_split(uri, "val")
    total = run.recipe.total_steps(train.examples)
    data = hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()
    place = Place(run, data)
    if (finished := place.claim()) is not None:
        _say(show, f"{run.name} is finished already: {place.folder}")
        return finished

    began = time.monotonic()
    resources = cluster.connect()
    run = run.model_copy(update={"scaling": run.scaling.resolve(resources.get("CPU", 1), resources.get("GPU", 0))})
    run = Run(**run.model_dump())  # the batch must divide among the workers now known
    _say(show, _plan(run, train.examples, val.examples, len(manifest.classes), total))
    recorder = tracking.Recorder(run, {"data": uri, "data_sha256": data}, parent)
    try:
        with progress.Watch(run.name, recorder.see, show=show):
            checkpoint, rows = _train(run, _feed(run, manifest, train, val), callbacks)
        recorder.rows(rows)
        last = rows[-1]
        outcome = Outcome(
            run=run.name,
            recipe=run.recipe.name,
            seed=run.seed,
            top1_error=last.top1_error,
            top5_error=last.top5_error,
            train_error=last.train_error,
            examples=val.examples,
            epochs=last.step / (train.examples // run.recipe.optim.batch_size),
            steps=last.step,
            seconds=time.monotonic() - began,
            images_per_second=sum(r.images_per_second * r.seconds for r in rows) / sum(r.seconds for r in rows),
            data=uri,
            checkpoint=checkpoint,
        )
        outcome = outcome.model_copy(update=recorder.finish(outcome, report.curves(run.name, rows, home()), data))
    except BaseException as error:
        recorder.fail("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    place.write("outcome.json", outcome.model_dump(mode="json"))
    return outcome


def shards(run: Run) -> str:
    """Where the run's shards are. The embedded digits are written on first use."""
    if run.data.path is not None:
        return run.data.path if "://" in run.data.path else str(Path(run.data.path).expanduser().resolve())
    from pipelines.shards import write_shards
    from pipelines.sources import digits

    out = str(Path(home()) / "data" / "digits")
    write_shards(digits(), out)
    return out


def _say(show: bool, text: str) -> None:
    if show:
        print(text, file=sys.stderr, flush=True)


def _plan(run: Run, train: int, val: int, classes: int, total: int) -> str:
    scaling, batch = run.scaling, run.recipe.optim.batch_size
    return (
        f"{run.name}: {train:,} training and {val:,} validation images of {classes} classes, {total:,} steps of "
        f"{batch} images, {scaling.workers} worker{'s' if scaling.workers != 1 else ''} on "
        f"{'GPU' if scaling.gpu else f'CPU with {scaling.threads} thread(s) each'}"
    )


class Place:
    """The folder of a run: what was asked for lies beside its checkpoints, so that two runs never mix."""

    def __init__(self, run: Run, data: str) -> None:
        self.run, self.folder = run, f"{run.storage_path}/{run.name}"
        self.system, self.path = filesystem(self.folder)
        # Only these decide the trained network; workers, tracking and the like may change from one start to the next.
        self.asked = {"recipe": run.recipe.model_dump(mode="json"), "seed": run.seed, "data_sha256": data}

    def claim(self) -> Outcome | None:
        """Write down what is asked for, or check that it is what the folder was made for. The outcome, if finished."""
        asked = self.read("asked.json")
        if asked is None:
            self.write("asked.json", self.asked)
        elif asked != self.asked:
            before, now = dict(tracking.flat(asked)), dict(tracking.flat(self.asked))
            field = next(k for k in {**now, **before} if before.get(k) != now.get(k))
            raise ValueError(
                f"{field} must be {before.get(field)} as in the run that {self.folder} holds, got {now.get(field)}; "
                f"for another run give another --storage"
            )
        finished = self.read("outcome.json")
        try:
            return None if finished is None else Outcome(**finished)
        except ValidationError as error:
            raise ValueError(f"{self.folder}/outcome.json: {sentence(error)}") from None

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the folder, or None."""
        try:
            with self.system.open_input_stream(f"{self.path}/{name}") as file:
                return json.loads(file.read())
        except FileNotFoundError:
            return None

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON file into the folder; whole, or not at all."""
        self.system.create_dir(self.path, recursive=True)
        with self.system.open_output_stream(f"{self.path}/{name}.part") as file:
            file.write(json.dumps(value, indent=2).encode())
        self.system.move(f"{self.path}/{name}.part", f"{self.path}/{name}")


def _feed(run: Run, manifest: Any, train: stream.Split, val: stream.Split) -> Any:
    """What workers need of the data; small sets are decoded here, once, into the object store."""
    import ray

    from pipelines.worker import Feed

    images = run.recipe.images
    resident = None
    if images.policy == "pad-crop":
        limit = run.data.memory_limit * 2**20
        splits = {split.name: stream.load_resident(split, images.size, limit) for split in (train, val)}
        sample = splits["train"].images
        resident = {name: ray.put(tuple(split)) for name, split in splits.items()}
    else:
        sample = stream.sample(train, images)
    mean, std = stream.pixel_statistics(sample, images.mean == "per-pixel")
    return Feed(train, val, manifest.classes, {"mean": mean, "std": std}, resident)


def _train(run: Run, feed: Any, callbacks: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """Run the workers to the end; the last checkpoint's place and the rows of all epochs."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    from pipelines.worker import train_worker
    from resnet.checkpoint import load

    scaling = run.scaling
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"run": run.model_dump_json(), "feed": feed},
        scaling_config=ScalingConfig(
            num_workers=scaling.workers or 1,
            use_gpu=bool(scaling.gpu),
            resources_per_worker={"CPU": scaling.cpus_per_worker or 1} | ({"GPU": 1} if scaling.gpu else {}),
        ),
        run_config=RunConfig(
            name=run.name,
            storage_path=run.storage_path,
            failure_config=FailureConfig(max_failures=3),
            checkpoint_config=CheckpointConfig(
                num_to_keep=run.checkpoints.keep, checkpoint_score_attribute="top1_error", checkpoint_score_order="min"
            ),
            callbacks=list(callbacks),
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise RuntimeError(f"{run.name} failed: {error}") from error
    if result.checkpoint is None:
        raise RuntimeError(f"{run.name} ended without a checkpoint in {run.storage_path}")
    with result.checkpoint.as_directory() as folder:
        return result.checkpoint.path, load(folder).progress.rows
