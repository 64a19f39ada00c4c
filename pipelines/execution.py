"""How Ray Data runs our pipelines: quietly, with patience, and without a busy loop beside the training."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data.context import DataContext

if TYPE_CHECKING:
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

PACE = 0.05  # seconds from one look of the executor at its tasks to the next


class Paced(ExecutionCallback):
    """Ray Data's executor looks at its tasks no more often than every PACE seconds.

    It is a thread of the consumer, here of a training worker. Where all tasks have blocks ready that nobody has room
    for, Ray 2.60 looks again at once, 800 times a second, and holds Python's lock while it does: threads that decode
    beside it get a third of their speed (docs/decisions/stream.md).
    """

    last = 0.0

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        """Called by the executor's thread at the end of each look."""
        time.sleep(max(0.0, self.last + PACE - time.monotonic()))
        self.last = time.monotonic()


def settle(patience: int) -> DataContext:
    """Set the context that this thread's datasets are made with, and give it.

    patience: seconds without any progress that end an execution: Ray's own 30 minutes would hide a deadlock.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = patience
    context.memory_usage_poll_interval_s = None  # else each task has a thread that looks at its memory
    if Paced not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(Paced)
    return context
