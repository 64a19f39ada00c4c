"""Checkpoints of detectors and segmenters: the same files as those of a classification, with figures of their own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from resnet.dense.dense_recipe import DenseRecipe, DetectionRecipe, SegmentationRecipe, dense_recipe
from resnet.dense.detectors import build_detector
from resnet.dense.segmenters import build_segmenter
from resnet.frozen import Frozen
from resnet.networks.resnet import ResNet
from resnet.training.checkpoint import CLASSIFICATION, RunProgress, read_checkpoint_files, task_of


class DenseRow(Frozen):
    """Global figures of one epoch, over all workers. mean_ap and what follows, in percent of the validation images:
    of a detector, or of a segmenter; None: not evaluated, or of the other task."""

    epoch: int
    step: int
    lr: float
    train_loss: float
    mean_ap: float | None = None
    mean_ap50: float | None = None
    mean_ap75: float | None = None
    mean_iou: float | None = None
    pixel_accuracy: float | None = None
    seconds: float
    cpu_seconds: float = 0.0
    data_wait_fraction: float = 0.0
    images_per_second: float

    @property
    def quality(self) -> float | None:
        """Figure that a network is judged by, in percent, higher is better: mAP or mIoU."""
        return self.mean_ap if self.mean_iou is None else self.mean_iou


class DenseProgress(RunProgress):
    """Progress of a detector or a segmenter. examples: validation images."""

    rows: tuple[DenseRow, ...] = ()

    @property
    def quality(self) -> float | None:
        """mAP or mIoU in percent of the newest evaluation."""
        return next((row.quality for row in reversed(self.rows) if row.quality is not None), None)


@dataclass
class DenseCheckpoint:
    """Contents of a checkpoint's directory. run: JSON of pipelines.dense.dense_run.DenseRun."""

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    pixels: dict[str, Tensor]
    run: dict[str, Any]
    progress: DenseProgress
    examples: dict[str, Tensor] | None = None

    @property
    def recipe(self) -> DetectionRecipe | SegmentationRecipe:
        """The recipe of the run that wrote it."""
        return dense_recipe(self.run["recipe"])

    def network(self) -> nn.Module:
        """The trained network in evaluation mode. ValueError: the weights are not those of the recipe."""
        network = build_dense(self.recipe, len(self.progress.classes), self.pixels["mean"], self.pixels["std"])
        try:
            network.load_state_dict(self.model)
        except RuntimeError as error:
            told = " ".join(str(error).split())[:300]
            raise ValueError(f"a checkpoint of {self.recipe.name} must hold its weights: {told}") from None
        return network.eval()


def build_dense(
    recipe: DenseRecipe, num_classes: int, mean: Tensor, std: Tensor, net: ResNet | None = None
) -> nn.Module:
    """A detector or a segmenter, by its recipe. mean, std: (3,) of the pixels in [0, 255]."""
    mean, std = mean.flatten(1).mean(1) if mean.ndim > 1 else mean, std.flatten(1).mean(1) if std.ndim > 1 else std
    if isinstance(recipe, DetectionRecipe):
        return build_detector(recipe, num_classes, mean, std, net)
    assert isinstance(recipe, SegmentationRecipe)
    return build_segmenter(recipe, num_classes, mean, std, net)


def load_dense(path: str | os.PathLike[str]) -> DenseCheckpoint:
    """Read a checkpoint directory. ValueError names what is missing or damaged, or that it is of another task."""
    folder = Path(path)
    files = read_checkpoint_files(folder)
    if (task := task_of(files.run)) == CLASSIFICATION:
        raise ValueError(f"a checkpoint must be of detection or segmentation here, got one of {task}: {folder}")
    progress = files.progress_as(DenseProgress)
    return DenseCheckpoint(**files.tensors, run=files.run, progress=progress, examples=files.examples)
