"""Shards with boxes or masks -> rows of one worker's batches, undecoded, by Ray Data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.cluster.free_cpus import TaskBudget
from pipelines.shards.row_groups import Split
from pipelines.stream.example_order import Order, evaluation_slice
from pipelines.stream.streamed import SHIPPED, through_tasks

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

COLUMNS = ("image", "target", "key")


class TargetRow(NamedTuple):
    """An image as the shards have it. target: boxes as JSON, or a mask as PNG; place: in the split."""

    image: bytes
    target: bytes
    key: str
    place: int


class EpochPart(NamedTuple):
    """One rank's part of a training epoch from a step on."""

    split: Split
    order: Order
    epoch: int
    first_step: int
    rank: int
    world_size: int

    def tables(self, item: dict[str, np.ndarray]) -> Iterator[pa.Table]:
        """A Ray Data task: some windows -> this rank's rows of their batches, in order."""
        starts = self.split.starts()
        for window, skip in zip(item["window"].tolist(), item["skip"].tolist(), strict=True):
            groups, rows = self.order.share(self.epoch, window, self.rank, self.world_size, skip)
            wanted = sorted(set(groups.ravel().tolist()))
            read = dict(zip(wanted, self.split.tables(wanted, COLUMNS), strict=True))
            for batch_groups, batch_rows in zip(groups.tolist(), rows.tolist(), strict=True):
                places = list(zip(batch_groups, batch_rows, strict=True))
                yield _taken([(read[g], row, int(starts[g]) + row) for g, row in places])


def _taken(places: list[tuple[pa.Table, int, int]]) -> pa.Table:
    """Rows of several tables as one, with their places in the split."""
    import pyarrow as pa

    columns: dict[str, Any] = {name: [table[name][row] for table, row, _ in places] for name in COLUMNS}
    kinds = {"image": pa.large_binary(), "target": pa.large_binary(), "key": pa.string()}
    arrays = {name: pa.array([value.as_py() for value in columns[name]], kinds[name]) for name in COLUMNS}
    return pa.table(arrays | {"place": pa.array([place for *_, place in places], pa.int64())})


def training_rows(part: EpochPart, room: TaskBudget) -> Iterator[list[TargetRow]]:
    """The rows of each batch of a rank, from the part's first step on. room: what this rank's tasks may hold."""
    size = part.order.local(part.rank, part.world_size)
    items = [{"window": w, "skip": skip} for w, skip in part.order.remaining(part.epoch, part.first_step)]
    held: list[TargetRow] = []
    block_size = max(1, round((SHIPPED - 0.5) * size * part.split.mean_bytes))
    with closing(through_tasks(items, partial(EpochPart.tables, part), block_size, None, room, "pyarrow")) as blocks:
        for block in blocks:
            held += _rows(block)
            while len(held) >= size:
                yield held[:size]
                held = held[size:]
    assert not held, "an epoch has whole batches"


def evaluation_rows(split: Split, rank: int, world_size: int, room: TaskBudget) -> Iterator[TargetRow]:
    """A rank's part of a split, each example once over all ranks, in order."""
    part, starts = evaluation_slice(split.examples, rank, world_size), split.starts()
    spans = [(g, max(part.start, int(starts[g])), min(part.stop, int(starts[g + 1]))) for g in range(len(split.rows))]
    items = [{"group": g, "begin": b, "end": e} for g, b, e in spans if b < e]
    task, block_size = partial(_span_rows, split), max(1, round(8 * split.mean_bytes))
    with closing(through_tasks(items, task, block_size, None, room, "pyarrow")) as blocks:
        for block in blocks:
            yield from _rows(block)


def _span_rows(split: Split, item: dict[str, np.ndarray]) -> Iterator[pa.Table]:
    """A Ray Data task: a part of a row group, a few rows at a time."""
    for group, begin, end in zip(*(item[name].tolist() for name in ("group", "begin", "end")), strict=True):
        first, table = int(split.starts()[group]), split.table(group, COLUMNS)
        for start in range(begin, end, 8):
            rows = range(start, min(start + 8, end))
            yield _taken([(table, row - first, row) for row in rows])


def _rows(block: pa.Table) -> list[TargetRow]:
    columns = (block[name].to_pylist() for name in (*COLUMNS, "place"))
    return [TargetRow(*values) for values in zip(*columns, strict=True)]
