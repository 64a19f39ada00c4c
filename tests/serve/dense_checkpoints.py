"""Checkpoints of an untrained detector and segmenter, and the application that serves one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from resnet.dense.dense_checkpoint import DenseCheckpoint, DenseProgress, DenseRow, build_dense
from resnet.dense.dense_recipe import DetectionRecipe, SegmentationRecipe
from resnet.image_class import ImageClass
from resnet.training.checkpoint import save_checkpoint
from serve.inference.dense.dense_model import DenseModel
from tests.serve.conftest import Client, application

NAMES = ("cell", "plate")
ROW: dict[str, Any] = {"epoch": 0, "step": 1, "lr": 0.1, "train_loss": 1.0, "seconds": 1.0, "images_per_second": 1.0}
RECIPES = {
    "detection": DetectionRecipe(network="imagenet-resnet18", size=64, width=16, anchor=8),
    "segmentation": SegmentationRecipe(network="imagenet-resnet18", size=64, auxiliary=0),
}


def write_dense(folder: Path, task: str, seed: int = 0) -> Path:
    """A checkpoint of an untrained network, which finds something all the same."""
    recipe = RECIPES[task]
    pixels = {"mean": torch.full((3, 1, 1), 110.0), "std": torch.full((3, 1, 1), 60.0)}
    classes = tuple(ImageClass(id=i, wnid=name, name=name) for i, name in enumerate(NAMES))
    figures: dict[str, Any] = {"mean_ap": 12.5} if task == "detection" else {"mean_iou": 62.5}
    progress = DenseProgress(step=1, total_steps=1, examples=4, classes=classes, rows=(DenseRow(**ROW, **figures),))
    torch.manual_seed(seed)
    model = build_dense(recipe, 2, pixels["mean"], pixels["std"]).state_dict()
    run = {"recipe": recipe.model_dump(mode="json"), "seed": seed}
    save_checkpoint(folder, DenseCheckpoint(model, {}, pixels, run, progress))
    return folder


@contextmanager
def client_of(folder: Path, **settings: object) -> Iterator[Client]:
    """A client of the endpoint that serves a checkpoint."""
    app, inference = application(DenseModel(str(folder)), folder, **settings)
    client = Client(app)
    try:
        yield client
    finally:
        client.close()
        inference.close()
