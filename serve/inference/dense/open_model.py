"""A checkpoint of any task as the model that answers for it, by the task that its run.json names."""

from __future__ import annotations

import json
from typing import Any

from resnet.training.checkpoint import CLASSIFICATION, task_of
from serve.inference import checkpoint_files, upload_checks
from serve.inference.classifier import Classifier
from serve.inference.dense.dense_model import DenseModel
from serve.inference.offline_classifier import MAX_PIXELS, Offline
from serve.problems import Problem


def task_there(path: str) -> str:
    """The task of the checkpoint at a folder or URI; classification where nothing says: its reader tells what lacks."""
    with checkpoint_files.local(path, ("run.json",)) as folder:
        try:
            return task_of(json.loads((folder / "run.json").read_text()))
        except (OSError, ValueError, AttributeError):
            return CLASSIFICATION


def open_model(path: str, **options: Any) -> Classifier:
    """The model of a checkpoint. options: of Classifier. ValueError where the folder holds none."""
    return (Classifier if task_there(path) == CLASSIFICATION else DenseModel)(path, **options)


class OfflineDense(DenseModel):
    """A detector or segmenter that refuses what the endpoint refuses."""

    def crop(self, data: bytes) -> Any:
        """The network's input. ValueError: the endpoint's own sentence."""
        try:
            upload_checks.check_upload(data, MAX_PIXELS, self.shorter_side)
        except Problem as problem:
            raise ValueError(problem.detail) from None
        return super().crop(data)


def open_offline(path: str, **options: Any) -> Classifier:
    """The endpoint's model without the endpoint, for jobs/predict_images.py."""
    return (Offline if task_there(path) == CLASSIFICATION else OfflineDense)(path, **options)
