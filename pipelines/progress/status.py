"""How far runs are, as a person watches them: rank 0 of each posts, the job that launched them shows it."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from pydantic import Field

from resnet.recipes.settings import Frozen

KEY, SAVE, FAILED = "resnet/progress/", "resnet/save/", "resnet/failed/"
POLL = 0.5  # seconds between two looks
LINE = 3.0  # seconds between two lines where the output is no terminal


class Status(Frozen):
    """Where a run is. step and total: optimiser steps; error: training error of the epoch so far, in percent.

    process: of rank 0; another one after each restart of the workers. time: in seconds since 1970. machine: rank 0's.
    conditions: what the training runs on, as text by name.
    """

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
    saved: str | None = None
    trouble: str | None = None
    rows: tuple[dict[str, Any], ...] = ()
    conditions: dict[str, str] = Field(default_factory=dict)
    process: int = Field(default_factory=os.getpid)
    time: float = Field(default_factory=time.time)
    machine: dict[str, float] = Field(default_factory=lambda: machine())

    def line(self) -> str:
        """One line of text with bar and ETA."""
        done = self.step / max(1, self.total)
        bar = "━" * round(24 * done) + "╌" * (24 - round(24 * done))
        return (
            f"{self.run}  {bar} {done:4.0%}  epoch {self.epoch:.1f}/{self.epochs:g}  loss {self.loss:.3f}  "
            f"error {self.error:.2f} %  {self.images_per_second:,.0f} img/s  "
            f"{clock(self.seconds_left)} left ({self.phase})"
        )


def machine() -> dict[str, float]:
    """How busy this machine is, under MLflow's names: percent since the last call, megabytes."""
    import psutil

    memory = psutil.virtual_memory()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_percentage": memory.percent,
        "system/system_memory_usage_megabytes": memory.used / 2**20,
    }


def say(text: str) -> None:
    """A line for the person who waits."""
    print(text, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, e.g. 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


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

    for key in (KEY, SAVE, FAILED):
        _internal_kv_del(key + run)


def ask_to_save(run: str) -> None:
    """Ask a run to save its state soon, because it is about to be stopped."""
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(SAVE + run, b"1", overwrite=True)


def save_is_wanted(run: str) -> bool:
    """Whether somebody has asked; answers yes once."""
    from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get

    wanted = _internal_kv_get(SAVE + run) is not None
    if wanted:
        _internal_kv_del(SAVE + run)
    return wanted


class Line:
    """Between rank 0 and its job: what it posts, and whether it was asked to save, by a thread of its own.

    A call takes up to ten milliseconds where all cores train, and the training would wait for it.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self._asked = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="post")
        self._last: Future[None] | None = None

    def post(self, status: Status) -> None:
        """Publish a status; the one before is out by then, or is waited for."""
        if self._last is not None:
            self._last.result()
        self._last = self._thread.submit(self._exchange, status)

    def _exchange(self, status: Status) -> None:
        post(status)
        if save_is_wanted(self.run):
            self._asked.set()

    def asked(self) -> bool:
        """Whether somebody had asked to save by the last status; answers yes once."""
        if not self._asked.is_set():
            return False
        self._asked.clear()
        return True

    def close(self) -> None:
        """Wait until the last status is out."""
        self._thread.shutdown()
        if self._last is not None:
            self._last.result()


def fail(run: str, reason: str) -> None:
    """Say why a run cannot go on; another try would end the same way. The first word stays."""
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(FAILED + run, reason.encode(), overwrite=False)


def failure(run: str) -> str | None:
    """Why a run cannot go on, or None."""
    from ray.experimental.internal_kv import _internal_kv_get

    reason = _internal_kv_get(FAILED + run)
    return None if reason is None else reason.decode()


class Watch:
    """Within `with`: shows the status of a run on stderr, and hands each new one to `seen`.

    One line is rewritten in place on a terminal; elsewhere lines are printed now and then.
    """

    def __init__(self, run: str, seen: Callable[[Status], None], *, show: bool = True) -> None:
        self.run, self.seen, self.show = run, seen, show
        self.in_place = sys.stderr.isatty()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="watch", daemon=True)
        self._printed, self._step = 0.0, -1
        self._trouble: str | None = None

    def __enter__(self) -> Self:
        forget(self.run)
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end.set()
        self._thread.join()
        if self.show and self.in_place:
            print(file=sys.stderr)

    def _follow(self) -> None:
        while not self._end.wait(POLL):
            self._look()
        self._look()

    def _look(self) -> None:
        if (status := look(self.run)) is None:
            return
        self.seen(status)
        self._tell(status)
        due = status.step == status.total or self.in_place or time.monotonic() - self._printed > LINE
        if self.show and status.step != self._step and due:
            print(status.line(), file=sys.stderr, end="\r" if self.in_place else "\n", flush=True)
            self._printed, self._step = time.monotonic(), status.step

    def _tell(self, status: Status) -> None:
        """Say once when checkpoints cannot be written, and when they can be again."""
        before, self._trouble = self._trouble, status.trouble
        if status.trouble == before or not self.show:
            return
        text = status.trouble or f"checkpoints are written again: {status.saved}"
        last = f"; the last good one is {status.saved or 'none yet'}, the training goes on" if status.trouble else ""
        print(f"{status.run}: {text}{last}", file=sys.stderr, flush=True)
