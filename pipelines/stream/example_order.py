"""The order of examples: a pure function of (row groups, seed, epoch), the same global batches at any world size.

For an epoch the row groups are permuted by (seed, epoch) and cut into windows that hold whole batches. Rows are
permuted inside each row group by (seed, epoch, row group), and the row groups of a window are merged evenly, so that
each global batch takes its part of every row group of its window. Inside a batch rows are sorted by row group and ranks
take contiguous slices, so that each row group is read by one rank where their number divides the window. What does not
fill a batch, in a window with a short row group, goes to one more window at the end of the epoch. Nothing is carried
from one call to the next: a resume at any step is arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

Rows = tuple[np.ndarray, np.ndarray]  # row group and row inside it, both (n,) int64
WINDOW = 16  # row groups that are shuffled together, and more where a batch is large:
LEAST_SHARE = 32  # images of a batch to each row group of a window, and so to each worker that reads its own alone


def default_window(batch_size: int) -> int:
    """Row groups of a window where nobody says: a function of the batch, not of the workers, as the order is.

    A row group is read by one worker only where a window has as many as there are workers. With 16 of them 512 workers
    that share a batch of 16,384 would read each four times (docs/decisions/order.md).
    """
    return max(WINDOW, batch_size // LEAST_SHARE)


@dataclass(frozen=True)
class Order:
    """rows: rows of each row group; batch_size: images of one step over all workers; window: row groups mixed.

    part: images of a batch that stay together on one rank, a divisor of batch_size.
    """

    rows: tuple[int, ...]
    batch_size: int
    window: int
    seed: int
    part: int = 1

    @cached_property
    def _rows(self) -> np.ndarray:
        return np.asarray(self.rows, dtype=np.int64)

    @property
    def examples(self) -> int:
        """Examples of the split."""
        return int(self._rows.sum())

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches; the tail that does not fill one is left out, another tail each epoch."""
        return self.examples // self.batch_size

    @property
    def groups_per_window(self) -> int:
        """`window`, raised to the next number of full row groups that hold whole batches."""
        step = self.batch_size // math.gcd(self.batch_size, max(self.rows))
        return -(-self.window // step) * step

    def readers(self, world_size: int) -> int:
        """Ranks that read each row group of a full window."""
        return max(1, -(-world_size // self.groups_per_window))

    def windows(self, epoch: int) -> list[np.ndarray]:
        """Row groups of each window in the order of the epoch. The last, with the leftovers, names those it reads."""
        return list(_windows(self, epoch))

    def first_steps(self, epoch: int) -> np.ndarray:
        """(windows + 1,) steps of the epoch before each window, and all steps."""
        steps = [int(self._rows[w].sum()) // self.batch_size for w in self.windows(epoch)[:-1]]
        return np.cumsum([0, *steps, self.steps_per_epoch - sum(steps)])

    def _merged(self, epoch: int, groups: np.ndarray) -> Rows:
        """All rows of a window: each row group permuted, then merged so that every stretch holds its part of each."""
        rows = [np.random.default_rng((self.seed, epoch, int(g))).permutation(self._rows[g]) for g in groups]
        place = np.concatenate([(np.arange(len(r)) + 0.5) / len(r) for r in rows])
        order = np.argsort(place, kind="stable")
        group = np.repeat(groups, [len(r) for r in rows])[order]
        return group, np.concatenate(rows)[order]

    def _leftovers(self, epoch: int, windows: list[np.ndarray]) -> Rows:
        """The rows that the short windows leave over, permuted; the tail of the epoch is cut off later."""
        ends = [self._merged(epoch, w) for w in windows if self._rows[w].sum() % self.batch_size]
        cut = [(group[-(len(group) % self.batch_size) :], row[-(len(row) % self.batch_size) :]) for group, row in ends]
        if not cut:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        group, row = (np.concatenate(part) for part in zip(*cut, strict=True))
        order = np.random.default_rng((self.seed, epoch, len(self.rows))).permutation(len(group))
        return group[order], row[order]

    def batches(self, epoch: int, window: int) -> Rows:
        """The global batches of a window: row groups and rows, both (steps, batch_size), sorted by row group place."""
        windows = self.windows(epoch)
        last = window == len(windows) - 1
        group, row = self._leftovers(epoch, windows[:-1]) if last else self._merged(epoch, windows[window])
        steps = len(group) // self.batch_size
        place = np.empty(len(self.rows), dtype=np.int64)
        place[windows[window]] = np.arange(len(windows[window]))
        group = group[: steps * self.batch_size].reshape(steps, self.batch_size)
        row = row[: steps * self.batch_size].reshape(steps, self.batch_size)
        order = np.argsort(place[group], axis=1, kind="stable")
        return np.take_along_axis(group, order, 1), np.take_along_axis(row, order, 1)

    def share(self, epoch: int, window: int, rank: int, world_size: int, skip: int = 0) -> Rows:
        """A rank's rows of a window's batches but the first `skip`: both (steps - skip, len of the rank's slice)."""
        group, row = self.batches(epoch, window)
        mine = self.slice(rank, world_size)
        return group[skip:, mine], row[skip:, mine]

    def slice(self, rank: int, world_size: int) -> slice:
        """A rank's places in each global batch: whole parts, as even as can be."""
        parts = self.batch_size // self.part
        return slice(parts * rank // world_size * self.part, parts * (rank + 1) // world_size * self.part)

    def local(self, rank: int, world_size: int) -> int:
        """A rank's images of each global batch."""
        mine = self.slice(rank, world_size)
        return mine.stop - mine.start

    def remaining(self, epoch: int, step: int) -> list[tuple[int, int]]:
        """(window, batches to skip) of every window that a run at `step` of the epoch has still to go through."""
        first = self.first_steps(epoch)
        windows = range(len(first) - 1)
        return [(w, max(0, step - int(first[w]))) for w in windows if first[w + 1] > max(step, first[w])]


@lru_cache(maxsize=4)
def _windows(order: Order, epoch: int) -> tuple[np.ndarray, ...]:
    """Order.windows, kept: each of ImageNet's 621 windows asks for them all."""
    groups, width = np.random.default_rng((order.seed, epoch)).permutation(len(order.rows)), order.groups_per_window
    groups.flags.writeable = False
    rows = np.asarray(order.rows, dtype=np.int64)
    whole = [groups[i : i + width] for i in range(0, len(groups), width)]
    short = [window for window in whole if rows[window].sum() % order.batch_size]
    return (*whole, np.concatenate(short) if short else np.empty(0, dtype=np.int64))


def evaluation_slice(examples: int, rank: int, world_size: int) -> range:
    """The contiguous examples that a rank evaluates; every example belongs to exactly one rank."""
    return range(examples * rank // world_size, examples * (rank + 1) // world_size)
