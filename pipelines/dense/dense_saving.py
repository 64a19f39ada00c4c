"""The checkpoints of detectors and segmenters, kept and written as those of classifications."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch

from pipelines.dense.dense_run import DenseRun
from pipelines.models.checkpoint_store import CheckpointStore
from pipelines.training.saving import Saver
from resnet.dense.dense_checkpoint import DenseCheckpoint, DenseProgress, DenseRow, load_dense


class DenseStore(CheckpointStore):
    """The checkpoints of a run; the last and those of the highest mAP or mIoU are kept."""

    @classmethod
    def of_dense(cls, run: DenseRun) -> Self:
        """Those of a run."""
        return cls(run.folder, run.checkpoints.keep)

    def _load(self, folder: Path) -> DenseCheckpoint:
        return load_dense(folder)

    def _judged(self, row: dict[str, Any]) -> float | None:
        quality = DenseRow(**row).quality
        return None if quality is None else -quality


class DenseSaver(Saver):
    """When and how the state of a dense run is saved: as Saver has it, with its own progress."""

    def _content(self, state: Any, sums: list[float], cpu_seconds: float) -> DenseCheckpoint:
        task: Any = self.task
        model, rest = self.learner.tensors()
        pixels = {name: torch.from_numpy(array).reshape(3, 1, 1) for name, array in task.feed.pixels.items()}
        progress = DenseProgress(
            step=state.step,
            total_steps=task.total,
            examples=task.feed.val.examples,
            classes=task.feed.classes,
            rows=state.rows,
            sums=tuple(sums),
            seconds=state.seconds,
            wait=state.wait,
            cpu_seconds=cpu_seconds,
            conditions=state.conditions,
        )
        return DenseCheckpoint(model, rest, pixels, self.learner.run(), progress)
