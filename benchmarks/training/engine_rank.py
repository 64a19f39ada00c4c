"""The engine's training of one rank on CIFAR-10 in memory, as pipelines/training makes its steps, without Ray."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import torch
from torch import distributed

from benchmarks.training import cifar
from pipelines.run import Run, Scaling
from pipelines.shards.row_groups import Split
from pipelines.stream.augmentation import Batch
from pipelines.stream.in_memory import Draws, Resident
from pipelines.training.learner import Learner
from pipelines.training.rank_data import RankData
from pipelines.training.run_data import WorkerData
from pipelines.training.training_state import TrainingState
from resnet.image_class import ImageClass
from resnet.images.pixel_statistics import pixel_statistics
from resnet.recipes.recipe import Recipe
from resnet.training.lr_schedule import lr_at


class EngineRank:
    """A training from its beginning, with the defaults of the engine: compiled, captured and fed as they say."""

    def __init__(self, recipe: Recipe, data: cifar.Cifar10, device: torch.device) -> None:
        if not distributed.is_initialized():  # the learner tells all ranks what one has chosen
            store = f"file://{tempfile.mkdtemp()}/store"
            distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
        mean, std = pixel_statistics(data.train.images, per_pixel=True)
        classes = tuple(ImageClass(id=i, wnid=name, name=name) for i, name in enumerate(cifar.CLASSES))
        splits = {"train": data.train, "val": data.val}
        train, val = (_split(name, split) for name, split in splits.items())
        feed = WorkerData(train, val, classes, {"mean": mean, "std": std}, dict.fromkeys(splits))
        self.task = RankData(Run(recipe=recipe, scaling=Scaling(workers=1)), feed, 0, 1, device)
        self.task.resident = {name: Resident(split.images, split.labels) for name, split in splits.items()}
        self.learner, self.state = Learner(self.task, None), TrainingState(device, None, 0)
        self.learner.capture()
        self._batches = self._all()

    def steps(self, count: int) -> None:
        """Train for so many steps, as the worker loop does; may return before the device has done them."""
        recipe, state = self.task.run.recipe, self.state
        for _ in range(count):
            with state.waiting():
                epoch, batch = next(self._batches)
            state.lr = lr_at(state.step, self.task.total, recipe.optim, recipe.schedule)
            state.add(self.learner.advance(batch, epoch, state.step, state.lr))
            state.step += 1

    def _all(self) -> Iterator[tuple[int, Batch | Draws]]:
        epoch = 0
        while True:
            for batch in self.task.training(epoch, 0):
                yield epoch, batch
            epoch += 1


def _split(name: str, split: cifar.Split) -> Split:
    """A split whose images lie in memory already: only its row groups count."""
    return Split("", name, (), tuple((0, group) for group in range(len(split.rows))), split.rows, 0.0)
