"""One rank's part of an epoch, undecoded: what a Ray Data task reads of the shards, batch by batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipelines.storage import Folder
from pipelines.stream.augmentation import Encoded, EpochAugmentation
from pipelines.stream.example_order import Order, Rows

if TYPE_CHECKING:
    import pyarrow as pa

    Groups = dict[int, "Files"]  # row group -> what is read of it


class Files(NamedTuple):
    """The files of a row group. views: of each one's bytes; labels: (N,) int64."""

    views: list[memoryview]
    labels: np.ndarray


@dataclass(frozen=True)
class RankEpoch:
    """One rank's part of a training epoch from a step on."""

    pictures: EpochAugmentation
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
                # A batch is sorted by row group: what it takes of each is a stretch.
                ends = np.flatnonzero(np.diff(batch_groups, prepend=-1, append=-1)).tolist()
                parts = [(read[int(batch_groups[i])], batch_rows[i:j]) for i, j in itertools.pairwise(ends)]
                images = joined([files.views[row] for files, chosen in parts for row in chosen.tolist()])
                labels = np.concatenate([files.labels[chosen] for files, chosen in parts])
                yield pa.table({"image": images, "label": labels, "index": starts[batch_groups] + batch_rows})

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
        wanted = np.unique(groups).tolist()
        return {group: _files(table) for group, table in zip(wanted, self.pictures.split.tables(wanted), strict=True)}


def _files(table: pa.Table) -> Files:
    """A row group as Arrow has read it."""
    return Files(_all_views(table["image"]), table["label"].to_numpy().astype(np.int64))


def _all_views(images: pa.ChunkedArray) -> list[memoryview]:
    """Each element, without a copy (Arrow's own scalars are copies)."""
    return [view for chunk in images.chunks for view in _views(chunk)]


def _views(images: pa.BinaryArray | pa.LargeBinaryArray) -> list[memoryview]:
    import pyarrow as pa

    _, offsets, data = images.buffers()
    if data is None:  # all of them are empty
        return [memoryview(b"")] * len(images)
    width = np.int64 if pa.types.is_large_binary(images.type) else np.int32
    # Arrow's own view is of signed bytes, which equal no marker of a JPEG.
    ends, whole = np.frombuffer(offsets, width)[images.offset :].tolist(), memoryview(data).cast("B")
    return [whole[a:b] for a, b in itertools.pairwise(ends[: len(images) + 1])]


def joined(images: list[memoryview]) -> pa.LargeBinaryArray:
    """Files, copied once, as the column of a block."""
    import pyarrow as pa

    ends = np.cumsum([0, *map(len, images)], dtype=np.int64)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(images))]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(images), buffers)


def encoded_rows(table: pa.Table) -> Encoded:
    """The rows of such a batch, or of several."""
    return Encoded(_all_views(table["image"]), table["label"].to_numpy(), table["index"].to_numpy())
