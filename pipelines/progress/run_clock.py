"""Rank 0's statuses of a training: how far it is, about once a second, and how long it will still take."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.progress.postings import StatusPoster
from pipelines.progress.status import Status
from pipelines.progress.time_left import TimeLeft

POST_EVERY = 1.0  # seconds between two statuses
TEST = "final test"  # the phase in which the finished network is tested


class RunClock:
    """Takes the time of steps and of what lies between them, and posts statuses. Does nothing without a poster.

    ranks: processes that train; figures: gives the fields of Status that are not of time, when one is posted.
    """

    def __init__(
        self, poster: StatusPoster | None, left: TimeLeft, ranks: int, figures: Callable[[], dict[str, Any]]
    ) -> None:
        self.poster, self.left, self.ranks, self.figures = poster, left, ranks, figures
        self._posted, self._mark = 0.0, (0.0, -1)

    def tick(self, step: int) -> None:
        """After each step; rarely more than one comparison."""
        if self.poster is not None and time.monotonic() - self._posted > POST_EVERY:
            self._count(step)
            self.post(step, "training")

    def _count(self, step: int) -> None:
        """Take the steps since the last mark as the pace. A process's first step is none."""
        now, (then, before) = time.monotonic(), self._mark
        if before >= 0:
            self.left.trained(step - before, now - then)
        self._mark = now, step

    @contextlib.contextmanager
    def beside(self, step: int, phase: str, images: int = 0) -> Iterator[Callable[[int], None]]:
        """Within: what is no training step. Gives a function that hears of this rank's images of so many of all."""
        self._count(step)
        began, seen = time.monotonic(), 0

        def done(count: int) -> None:
            nonlocal seen
            seen += count * self.ranks
            if self.poster is not None and (now := time.monotonic()) - self._posted > POST_EVERY:
                left = (now - began) / seen * max(0, images - seen)
                self.post(step, f"{phase}, {min(1.0, seen / images):.0%}", left)

        self.post(step, phase)
        yield done
        self.left.evaluated(seen, time.monotonic() - began)
        self._mark = time.monotonic(), step

    def post(self, step: int, phase: str, phase_left: float = 0.0) -> None:
        """Publish the status. phase_left: seconds that the phase still takes, beside the steps to come."""
        if self.poster is None:
            return
        self._posted = time.monotonic()
        left = self.left.seconds(step, is_testing=phase.startswith(TEST))
        left = None if left is None else left + phase_left
        speed = {"images_per_second": self.left.images_per_second, "step_seconds": self.left.step_seconds}
        self.poster.post(Status(phase=phase, step=step, seconds_left=left, **speed, **self.figures()))
