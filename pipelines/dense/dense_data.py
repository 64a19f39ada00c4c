"""The data of a run with boxes or masks: found, checked against the task, and the part of them that workers get."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.dense.dense_run import DenseRun
from pipelines.shards.manifest import Manifest
from pipelines.shards.row_groups import Split, open_split
from pipelines.tracking.mlflow_runs import RunDataset
from resnet.image_class import ImageClass
from resnet.images.decode import decode

WANTED = {"detection": "boxes", "segmentation": "masks"}
SAMPLE = 64  # training images whose mean and deviation pixels are normalised by
SMALLEST = 1.0  # of a standard deviation, in [0, 255]: all images may be of one colour


@dataclass(frozen=True)
class DenseFeed:
    """All that a worker needs of the data. pixels: "mean" and "std" (3,) in [0, 255], float32."""

    train: Split
    val: Split
    classes: tuple[ImageClass, ...]
    pixels: dict[str, np.ndarray]
    sha256: str


@dataclass(frozen=True)
class DenseSource:
    """The shards of a run and their two splits."""

    uri: str
    manifest: Manifest
    train: Split
    val: Split

    @property
    def sha256(self) -> str:
        """Of the classes and every shard, wherever they lie."""
        return self.manifest.fingerprint()

    @property
    def tags(self) -> dict[str, str]:
        """The data's description in MLflow's run."""
        return {"data": self.uri, "data_sha256": self.sha256}

    @property
    def dataset(self) -> RunDataset:
        """The data as MLflow's page shows them; the name is the folder's."""
        name = self.uri.partition("?")[0].rstrip("/").rpartition("/")[2]
        sizes = {"train": self.train.examples, "val": self.val.examples, "classes": len(self.manifest.classes)}
        return RunDataset(name, self.uri, self.sha256, {"num_rows": self.train.examples} | sizes)

    def feed(self, pixels: dict[str, np.ndarray]) -> DenseFeed:
        """The part that travels to the workers."""
        return DenseFeed(self.train, self.val, self.manifest.classes, pixels, self.sha256)


def open_dense(run: DenseRun) -> DenseSource:
    """Find the shards of a run. ValueError: they are of another task, a split is empty, a batch larger than train."""
    uri, wanted = run.data.path, WANTED[run.recipe.task]
    manifest, train = open_split(uri, "train")
    if manifest.targets != wanted:
        raise ValueError(
            f"data.path must be shards with {wanted} for {run.recipe.task}, {uri} has "
            f"{manifest.targets or 'a class an image'}"
        )
    source = DenseSource(uri, manifest, train, Split.of(manifest, uri, "val"))
    for split in (source.train, source.val):
        if split.examples == 0:
            raise ValueError(f"{uri} must have {split.name} images, got none")
    run.recipe.total_steps(train.examples)
    return source


def sampled_pixels(train: Split) -> dict[str, np.ndarray]:
    """Mean and standard deviation of each channel over some training images, (3,) float32 in [0, 255]."""
    images = [decode(data).reshape(-1, 3) for data in train.read(0, ("image",))["image"][:SAMPLE]]
    counts = sum(len(image) for image in images)
    sums = sum((image.sum(0, dtype=np.float64) for image in images), np.zeros(3))
    squares = sum((np.square(image, dtype=np.float64).sum(0) for image in images), np.zeros(3))
    mean = sums / counts
    std = np.sqrt(np.maximum(squares / counts - mean**2, SMALLEST))
    return {"mean": mean.astype(np.float32), "std": std.astype(np.float32)}
