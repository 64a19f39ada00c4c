"""Settings of Ray Data for our pipelines: quietly, with patience, and without a busy loop beside the training."""

from __future__ import annotations

from ray.data.context import DataContext

from pipelines.cluster.ray_internals import paced


def settle(patience: int) -> DataContext:
    """Set the context that this thread's datasets are made with, and give it.

    patience: seconds without any progress that end an execution: Ray's own 30 minutes would hide a deadlock.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = patience
    context.memory_usage_poll_interval_s = None  # else each task has a thread that looks at its memory
    slower = paced()
    if slower is not None and slower not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(slower)
    return context
