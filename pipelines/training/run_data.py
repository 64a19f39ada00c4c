"""WorkerData: what travels from the job to every worker of the data of a run. No torch here."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pyarrow.fs import FileType

from pipelines.file_names import below
from pipelines.run import Run, home
from pipelines.shards import row_groups
from pipelines.shards.manifest import MANIFEST, Manifest
from pipelines.shards.row_groups import Split
from pipelines.shards.shard_cache import ShardCache
from pipelines.storage import Folder
from pipelines.stream import in_memory, streamed
from pipelines.tracking import mlflow_runs
from pipelines.training.run_folder import RunFolder
from resnet.image_class import ImageClass
from resnet.images.pixel_statistics import pixel_statistics
from resnet.recipes.loss_settings import require_arcface

if TYPE_CHECKING:
    from pipelines.models.checkpoint_store import CheckpointStore


@dataclass(frozen=True)
class WorkerData:
    """All that a worker needs of the data.

    pixels: "mean" (3, S, S) or (3, 1, 1) and "std" (3, 1, 1) of the training set, in [0, 255], float32.
    resident: object references of decoded splits by name, or None if they are streamed.
    grey_range: levels that preparation made 0 and 255, for the checkpoint. class_counts: training images by class,
    where the loss weighs classes. sha256: RunData's, for the folder of the run.
    """

    train: Split
    val: Split
    classes: tuple[ImageClass, ...]
    pixels: dict[str, np.ndarray]
    resident: dict[str, Any] | None
    grey_range: tuple[int, int] | None = None
    class_counts: tuple[int, ...] | None = None
    sha256: str = ""


@dataclass(frozen=True)
class RunData:
    """The data of a run: where the shards are, their two splits, and a fingerprint of the manifest.

    holdout: images of the manifest's training split that are val in place of the manifest's own.
    """

    uri: str
    manifest: Manifest
    train: row_groups.Split
    val: row_groups.Split
    holdout: int = 0

    @property
    def sha256(self) -> str:
        """Of the classes and every shard, wherever they lie; another with a holdout, as its errors are no test's."""
        return self.manifest.fingerprint(self.holdout)

    @property
    def sha256_before(self) -> str:
        """The hash that runs before 2026-11-24 have noted of the same data."""
        return self.manifest.fingerprint_before(self.holdout)

    @property
    def tags(self) -> dict[str, str]:
        """The data's description in MLflow's run."""
        return {"data": self.uri, "data_sha256": self.sha256}

    @property
    def dataset(self) -> mlflow_runs.RunDataset:
        """The data as MLflow's page shows them; the name is the folder's."""
        name = self.uri.partition("?")[0].rstrip("/").rpartition("/")[2]
        sizes = {"train": self.train.examples, "val": self.val.examples, "classes": len(self.manifest.classes)}
        held = f", {self.holdout} held out" if self.holdout else ""
        return mlflow_runs.RunDataset(f"{name}{held}", self.uri, self.sha256, {"num_rows": self.train.examples} | sizes)

    def begin(self, run: Run) -> str | None:
        """Write the checkpoint of step 0 of a run that begins with trained weights, unless it has begun; a sentence on
        its classifier. ValueError: they do not fit."""
        from pipelines.models.checkpoint_store import CheckpointStore
        from pipelines.models.initial_weights import initial_checkpoint

        checkpoints = CheckpointStore.of(run)
        if self.place(run).is_new:
            _remove_other_weights(run, checkpoints)
        if run.init is None or checkpoints.names():
            return None
        checkpoint, sentence = initial_checkpoint(run, self.manifest, self.train.examples, self.val.examples)
        checkpoints.write(checkpoint)
        return sentence

    def place(self, run: Run) -> RunFolder:
        """The folder of a run on these data."""
        return RunFolder(run, self.sha256, self.sha256_before)


def _remove_other_weights(run: Run, checkpoints: CheckpointStore) -> None:
    """Remove the checkpoint of step 0 that a start of another run has left here, which never made a step."""
    name, mine = checkpoints.name_of(0), run.model_dump(mode="json")
    with contextlib.suppress(FileNotFoundError, ValueError):
        there = json.loads(checkpoints.folder.read(f"{name}/run.json"))
        if any(there.get(field) != mine[field] for field in ("recipe", "seed", "init_sha256")):
            checkpoints.folder.remove(name)


def open_source(run: Run) -> RunData:
    """Find the shards of a run; the embedded digits are written on first use. ValueError before any work is done."""
    uri = shards(run)
    cache = ShardCache.of(run.data)
    manifest, train = row_groups.open_split(uri, "train", cache)
    if manifest.targets is not None:
        job = {"boxes": "jobs/train_detector.py", "masks": "jobs/train_segmenter.py"}[manifest.targets]
        raise ValueError(f"data.path must be shards of images with a class each, {uri} has {manifest.targets}: {job}")
    val, holdout = row_groups.Split.of(manifest, uri, "val", cache), run.data.holdout
    if holdout:
        if holdout >= train.examples:
            raise ValueError(f"data.holdout must leave training images, got {holdout} of {train.examples}")
        train, val = train.parted(holdout)
    source = RunData(uri, manifest, train, val, holdout)
    for split in (source.train, source.val):
        if split.examples == 0:
            raise ValueError(f"{uri} must have {split.name} images, got none")
    run.recipe.total_steps(train.examples)
    if run.recipe.loss.is_angular:
        require_arcface()
    if run.init is not None or run.recipe.loss.class_weights:
        require_classes(source)
    return source


def require_classes(source: RunData) -> None:
    """ValueError: the training images are of one class, or a class has validation images only. Reads all labels."""
    classes = source.manifest.classes
    train, val = (class_counts(split, len(classes)) for split in (source.train, source.val))
    there = np.flatnonzero(train)
    if len(there) < 2:
        name = classes[int(there[0])].name
        raise ValueError(
            f"{source.uri} must have training images of two classes at least, all {train.sum()} are {name}"
        )
    unseen = np.flatnonzero((train == 0) & (val > 0))
    if len(unseen):
        image_class = classes[int(unseen[0])]
        raise ValueError(
            f"{source.uri} must have training images of each class of val, class {image_class.name} has "
            f"{val[unseen[0]]} in val and none in train"
        )


def class_counts(split: Split, classes: int) -> np.ndarray:
    """Images of a split by class, (classes,). Reads its labels, not its images."""
    tables = split.tables(list(range(len(split.rows))), ("label",))
    labels = [table["label"].to_numpy() for table in tables]
    return np.bincount(np.concatenate(labels), minlength=classes) if labels else np.zeros(classes, np.int64)


def shards(run: Run) -> str:
    """Path of the run's shards. The embedded digits are written on first use: to a bucket where the run has one, which
    all nodes reach, else to this machine's home."""
    if run.data.path is not None:
        return run.data.path
    from pipelines.preparation.prepare import write_shards
    from pipelines.preparation.sources import Source as Origin

    in_bucket = run.storage is not None and not Folder(run.storage).is_local
    out = below(run.storage_path, "data/digits") if in_bucket else str(Path(home()) / "data" / "digits")
    if Folder(out).kind(MANIFEST) != FileType.File:
        write_shards(Origin(kind="digits"), out, workers=0)
    return out


def load_feed(run: Run, source: RunData) -> WorkerData:
    """The part of the data that workers need; small sets are decoded here, once, into the object store."""
    import ray

    images, train, val = run.recipe.images, source.train, source.val
    resident = sample = None
    if images.policy == "pad-crop":
        limit = run.data.memory_limit * 2**20
        splits = {split.name: in_memory.load_resident(split, images.size, limit) for split in (train, val)}
        sample = splits["train"].images
        resident = {name: ray.put(tuple(split)) for name, split in splits.items()}
    elif images.mean != "given":
        sample = streamed.sample_crops(train, images)
    if images.mean == "given":
        mean, std = (
            255 * np.asarray(values, np.float32).reshape(3, 1, 1) for values in (images.pixel_mean, images.pixel_std)
        )
    else:
        assert sample is not None
        mean, std = pixel_statistics(sample, images.mean == "per-pixel")
    counts = None
    if run.recipe.loss.class_weights:
        counts = tuple(class_counts(train, len(source.manifest.classes)).tolist())
    pixels, grey_range = {"mean": mean, "std": std}, source.manifest.encoding.grey_range
    return WorkerData(train, val, source.manifest.classes, pixels, resident, grey_range, counts, source.sha256)
