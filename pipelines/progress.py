"""How far the runs of a cluster are, as a person watches it: rank 0 posts, the job that launched the run shows it."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from resnet.recipe import Frozen

KEY = "resnet/progress/"
POLL = 0.5  # seconds between two looks
LINE = 3.0  # seconds between two lines where the output is no terminal


class Status(Frozen):
    """Where a run is. step and total: optimiser steps; error: training error of the epoch so far, in percent."""

    run: str
    phase: str
    step: int
    total: int
    epoch: float
    epochs: float
    loss: float
    error: float
    images_per_second: float
    seconds_left: float
    rows: tuple[dict[str, Any], ...] = ()

    def line(self) -> str:
        """One line of text with bar and ETA."""
        done = self.step / max(1, self.total)
        bar = "━" * round(24 * done) + "╌" * (24 - round(24 * done))
        left = time.strftime("%H:%M:%S", time.gmtime(self.seconds_left))
        return (
            f"{self.run}  {bar} {done:4.0%}  epoch {self.epoch:.1f}/{self.epochs:g}  loss {self.loss:.3f}  "
            f"error {self.error:.2f} %  {self.images_per_second:,.0f} img/s  {self.phase}, {left} left"
        )


def post(status: Status) -> None:
    """Publish a status, from a worker. Ray's key-value store: no process of its own, a millisecond a call."""
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(KEY + status.run, status.model_dump_json().encode(), overwrite=True)


def look(run: str) -> Status | None:
    """The last status that was posted for a run, or None."""
    from ray.experimental.internal_kv import _internal_kv_get

    value = _internal_kv_get(KEY + run)
    return None if value is None else Status(**json.loads(value))


def forget(run: str) -> None:
    """Remove what an earlier try of a run posted."""
    from ray.experimental.internal_kv import _internal_kv_del

    _internal_kv_del(KEY + run)


class Watch:
    """Within `with`: shows a run's status on stderr, and hands each new one to `seen`."""

    def __init__(self, run: str, seen: Callable[[Status], None] | None = None, *, show: bool = True) -> None:
        self.run, self.seen, self.show = run, seen, show
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"watch {run}", daemon=True)
        self._printed: tuple[float, int] = (0.0, -1)

    def __enter__(self) -> Self:
        forget(self.run)
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end.set()
        self._thread.join()
        if self.show and sys.stderr.isatty():
            print(file=sys.stderr)

    def _follow(self) -> None:
        while not self._end.wait(POLL):
            self._look()
        self._look()

    def _look(self) -> None:
        status = look(self.run)
        if status is None:
            return
        if self.seen:
            self.seen(status)
        when, step = self._printed
        last = status.step == status.total
        if not self.show or status.step == step or not (last or sys.stderr.isatty() or time.monotonic() - when > LINE):
            return
        print(status.line(), file=sys.stderr, end="\r" if sys.stderr.isatty() else "\n", flush=True)
        self._printed = time.monotonic(), status.step
