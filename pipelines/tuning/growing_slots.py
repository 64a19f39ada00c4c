"""A sweep that runs more trials at a time when nodes have joined its cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter

from pipelines.progress.sweep_table import Board

EVERY = 10.0  # seconds between two looks at the cluster

Limited = BasicVariantGenerator | ConcurrencyLimiter


class GrowingSlots(tune.Callback):
    """Raises the number of trials at a time to what there is room for; those that run are left alone.

    room: trials that fit on the nodes that are up; limited: where Tune takes its next trial from.
    """

    def __init__(self, board: Board, limited: Limited, room: Callable[[], int]) -> None:
        self.board, self.limited, self.room = board, limited, room
        self.looked = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune keeps a pickle of its callbacks, which nobody reads."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune is about to look for trials that it can start."""
        if time.monotonic() - self.looked < EVERY:
            return
        self.looked, fitting = time.monotonic(), self.room()
        if fitting > self.board.slots:
            self.board.slots = self.limited.max_concurrent = fitting
