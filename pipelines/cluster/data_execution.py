"""Settings of Ray Data for our pipelines: quietly, with patience, and without a busy loop beside the training."""

from __future__ import annotations

import time

from ray.data.context import DataContext

from pipelines.cluster.ray_internals import paced

SLOWEST, QUICKEST = 0.05, 0.005  # seconds from one look of Ray Data's executor at its tasks to the next
SHARE = 0.2  # of the newest gap in the mean


class BlockPace:
    """The pace at which an executor looks at its tasks: twice in the time from one block to the next. A rank with
    a hundred small batches a second gets them all, and one with few leaves Python's lock to its threads."""

    def __init__(self) -> None:
        self._last = float("-inf")
        self._gap = float("inf")

    def took_block(self, now: float | None = None) -> None:
        """The consumer has got a block. now: seconds on a clock."""
        now = time.monotonic() if now is None else now
        gap, self._last = now - self._last, now
        self._gap = gap if self._gap == float("inf") else self._gap + SHARE * (min(gap, 2 * SLOWEST) - self._gap)

    def seconds(self, now: float | None = None) -> float:
        """From one look to the next. A consumer that has taken nothing for a while has no hurry."""
        now = time.monotonic() if now is None else now
        return min(SLOWEST, max(QUICKEST, max(self._gap, now - self._last) / 2))


BLOCKS = BlockPace()  # of this process: it takes the blocks of one dataset at a time


def settle(patience: int) -> DataContext:
    """Set the context that this thread's datasets are made with, and give it.

    patience: seconds without any progress that end an execution: Ray's own 30 minutes would hide a deadlock.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = patience
    context.memory_usage_poll_interval_s = None  # else each task has a thread that looks at its memory
    slower = paced(BLOCKS.seconds)
    if slower is not None and slower not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(slower)
    return context
