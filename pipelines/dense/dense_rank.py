"""One rank's view of a dense run: its batches, decoded ahead by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pipelines.dense.dense_data import DenseFeed
from pipelines.dense.dense_run import DenseRun
from pipelines.stream.target_batches import EpochPart, TargetRow, evaluation_rows, training_rows
from pipelines.training.rank_data import RankView
from resnet.dense.dense_images import Example, evaluation_example, training_example

AHEAD = 2  # batches that are decoded while one is trained on


class JudgedExample(NamedTuple):
    """A validation image, its key, and its place in the split."""

    example: Example
    key: str
    place: int


class DenseRank(RankView[DenseRun, DenseFeed]):
    """The batches of a rank."""

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
