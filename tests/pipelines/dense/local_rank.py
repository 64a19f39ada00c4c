"""A rank that reads its rows in this process: what Ray Data's tasks do, without the seconds that they take to start."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pipelines.dense.dense_data import open_dense, sampled_pixels
from pipelines.dense.dense_rank import DenseRank, JudgedExample
from pipelines.dense.dense_run import DenseRun
from pipelines.stream.target_batches import COLUMNS, EpochPart, TargetRow
from resnet.dense.dense_images import Example, evaluation_example

CPU = torch.device("cpu")


def rows_of(table: pa.Table) -> list[TargetRow]:
    return [TargetRow(**row) for row in table.to_pylist()]


class LocalRank(DenseRank):
    def training(self, epoch: int, first_step: int) -> Iterator[list[Example]]:
        part = EpochPart(self.feed.train, self.order, epoch, first_step, self.rank, self.world_size)
        for window, skip in self.order.remaining(epoch, first_step):
            for table in part.tables({"window": np.array([window]), "skip": np.array([skip])}):
                yield [self._training(row, epoch) for row in rows_of(table)]

    def evaluation(self) -> Iterator[JudgedExample]:
        starts = self.feed.val.starts()
        for group in range(len(self.feed.val.rows)):
            rows: Any = self.feed.val.table(group, COLUMNS).to_pylist()
            for index, row in enumerate(rows, start=int(starts[group])):
                yield JudgedExample(evaluation_example(row["image"], row["target"], self.run.recipe), row["key"], index)


def local_rank(run: DenseRun, kind: type[LocalRank] = LocalRank) -> LocalRank:
    """The only rank of a run."""
    source = open_dense(run)
    return kind(run, source.feed(sampled_pixels(source.train)), 0, 1, CPU)


def folder_of(run: DenseRun) -> Path:
    return Path(run.folder)
