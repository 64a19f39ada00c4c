"""Time that a device had nothing to compute while its process waited for data.

On a CPU it is the host's own time. A GPU computes what it was given before, so that the host may wait while the device
is busy: there a pair of events around each wait says how long the device stood between the work before and after it.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch


class Mark(Protocol):
    """A place in the work that a device was given: torch.cuda.Event with its clock on."""

    def record(self) -> None:
        """Put it behind all work so far."""
        ...

    def query(self) -> bool:
        """True if the device has come to it."""
        ...

    def elapsed_time(self, end_event: Any, /) -> float:
        """Milliseconds of the device from this mark to a later one."""
        ...


class DeviceWait:
    """Adds up the waits of a process by its device. mark: makes the marks of a device that works by itself, or None."""

    def __init__(self, mark: Callable[[], Mark] | None) -> None:
        self._mark = mark
        self._pending: deque[tuple[Mark, Mark]] = deque()
        self._seconds = 0.0

    @classmethod
    def of(cls, device: torch.device) -> DeviceWait:
        """That of a device; marks go onto the stream that computes."""
        return cls(_timed_event if device.type == "cuda" else None)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Within, the process waits. Nothing here waits for the device."""
        if self._mark is None:
            began = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - began
            return
        before, after = self._mark(), self._mark()
        before.record()
        yield
        after.record()
        self._pending.append((before, after))
        self._collect()

    def taken(self) -> float:
        """Seconds that the device has stood since the last call, as far as it has got."""
        self._collect()
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _collect(self) -> None:
        while self._pending and self._pending[0][1].query():
            before, after = self._pending.popleft()
            self._seconds += before.elapsed_time(after) / 1000


def _timed_event() -> Mark:
    return torch.cuda.Event(enable_timing=True)
