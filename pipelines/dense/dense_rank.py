"""One rank's view of a dense run: its batches, decoded ahead by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from pipelines.cluster.free_cpus import TaskBudget
from pipelines.dense.dense_data import DenseFeed
from pipelines.dense.dense_run import DenseRun
from pipelines.stream.example_order import Order
from pipelines.stream.target_batches import EpochPart, TargetRow, evaluation_rows, training_rows
from resnet.dense.dense_images import Example, evaluation_example, training_example

AHEAD = 2  # batches that are decoded while one is trained on


class JudgedExample(NamedTuple):
    """A validation image, its key, and its place in the split."""

    example: Example
    key: str
    place: int


class DenseRank:
    """The batches of a rank. room: what its data tasks may hold."""

    def __init__(
        self,
        run: DenseRun,
        feed: DenseFeed,
        rank: int,
        world_size: int,
        device: torch.device,
        room: TaskBudget | None = None,
    ) -> None:
        self.run, self.feed, self.rank, self.world_size, self.device = run, feed, rank, world_size, device
        cpus = run.scaling.data_cpus or 1.0
        self.room = room or TaskBudget.of(cpus)
        self.threads = max(1, round(cpus + (run.scaling.cpus_per_worker or 0)))
        self.order = Order(feed.train.rows, run.recipe.optim.batch_size, run.data.window, run.seed)
        self.total = run.recipe.total_steps(feed.train.examples)

    def training(self, epoch: int, first_step: int) -> Iterator[list[Example]]:
        """This rank's batches of an epoch. An example's augmentation depends on (seed, epoch, example) alone."""
        rows = training_rows(
            EpochPart(self.feed.train, self.order, epoch, first_step, self.rank, self.world_size), self.room
        )
        with ThreadPoolExecutor(self.threads, thread_name_prefix="decode") as pool:
            started: deque[list[Future[Example]]] = deque()
            for batch in rows:
                started.append([pool.submit(self._training, row, epoch) for row in batch])
                if len(started) > AHEAD:
                    yield [future.result() for future in started.popleft()]
            while started:
                yield [future.result() for future in started.popleft()]

    def _training(self, row: TargetRow, epoch: int) -> Example:
        rng = np.random.default_rng((self.run.seed, epoch, row.place, 2))
        return training_example(row.image, row.target, self.run.recipe, rng)

    def evaluation(self) -> Iterator[JudgedExample]:
        """This rank's part of the validation split."""
        for row in evaluation_rows(self.feed.val, self.rank, self.world_size, self.room):
            yield JudgedExample(evaluation_example(row.image, row.target, self.run.recipe), row.key, row.place)

    def ids(self, epoch: int, step: int) -> Sequence[int]:
        """Places in the training split of the global batch of a step of an epoch."""
        window, skip = self.order.remaining(epoch, step)[0]
        groups, rows = self.order.batches(epoch, window)
        return (self.feed.train.starts()[groups[skip]] + rows[skip]).tolist()
