"""One rank's part of an epoch, undecoded: what a Ray Data task reads of the shards, batch by batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.order import Order, Rows
from pipelines.pictures import Encoded, Pictures
from pipelines.storage import Folder

if TYPE_CHECKING:
    import pyarrow as pa

    Groups = dict[int, tuple[pa.Array, np.ndarray]]  # row group -> its files and labels


@dataclass(frozen=True)
class Part:
    """One rank's part of a training epoch from a step on."""

    pictures: Pictures
    order: Order
    first_step: int
    rank: int
    world_size: int

    @property
    def batch_size(self) -> int:
        """Images of one step of this rank."""
        return self.order.local(self.rank, self.world_size)

    def windows(self) -> list[tuple[int, int]]:
        """(window, batches to skip) of every window that is left."""
        return self.order.remaining(self.pictures.epoch, self.first_step)

    def tables(self, begin: int, end: int) -> Iterator[pa.Table]:
        """The batches of some of the windows: image, label and index of each row, undecoded."""
        import pyarrow as pa

        split, epoch = self.pictures.split, self.pictures.epoch
        starts = split.starts()
        shares = (
            self.order.share(epoch, window, self.rank, self.world_size, skip)
            for window, skip in self.windows()[begin:end]
        )
        for groups, rows, read in self._reads(shares):
            for batch_groups, batch_rows in zip(groups, rows, strict=True):
                # A batch is sorted by row group: what it takes of each is a stretch. Taking and joining the stretches
                # is a third of the cost of taking row by row.
                ends = np.flatnonzero(np.diff(batch_groups, prepend=-1, append=-1)).tolist()
                parts = [(read[int(batch_groups[i])], batch_rows[i:j]) for i, j in itertools.pairwise(ends)]
                files = pa.concat_arrays([files.take(pa.array(chosen)) for (files, _), chosen in parts])
                labels = np.concatenate([labels[chosen] for (_, labels), chosen in parts])
                yield pa.table({"image": files, "label": labels, "index": starts[batch_groups] + batch_rows})

    def _reads(self, shares: Iterator[Rows]) -> Iterator[tuple[np.ndarray, np.ndarray, Groups]]:
        """The share of each window and its row groups; over a network the next are read while one is handed on."""
        if Folder(self.pictures.split.uri).is_local:
            yield from ((groups, rows, self._read(groups)) for groups, rows in shares)
            return
        with ThreadPoolExecutor(1) as ahead:
            begun: list[tuple[np.ndarray, np.ndarray, Future[Groups]]] = []
            for groups, rows in shares:
                begun.append((groups, rows, ahead.submit(self._read, groups)))
                if len(begun) > 1:
                    groups, rows, reading = begun.pop(0)
                    yield groups, rows, reading.result()
            for groups, rows, reading in begun:
                yield groups, rows, reading.result()

    def _read(self, groups: np.ndarray) -> Groups:
        """The files and the labels of each row group of a window."""
        import pyarrow as pa

        wanted = np.unique(groups).tolist()
        tables = self.pictures.split.tables(wanted)
        # Large: a batch may hold more than 2 GiB.
        files = [table["image"].combine_chunks().cast(pa.large_binary()) for table in tables]
        labels = [table["label"].to_numpy().astype(np.int64) for table in tables]
        return dict(zip(wanted, zip(files, labels, strict=True), strict=True))


def encoded(table: pa.Table) -> Encoded:
    """The rows of such a batch, or of several."""
    files = [file for chunk in table["image"].chunks for file in chunk]
    return Encoded(files, table["label"].to_numpy(), table["index"].to_numpy())
