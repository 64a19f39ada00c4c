"""How Linux shares a core between what computes and what else wakes on it. Elsewhere nothing changes.

A thread that wakes interrupts the one that runs: beside a computation Ray's processes do so some hundred times a
second, each for a moment, and each time the caches fill with something else. Threads of the batch policy never
interrupt; they wait for the end of a slice, and the longer that is the more of them are served at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
from collections.abc import Iterator
from pathlib import Path

SLICE = 40_000_000  # nanoseconds in place of 3 million; Linux 6.12 is the first that takes it
SETATTR = {"x86_64": 314, "aarch64": 274}  # number of the system call, which neither os nor most C libraries have
ATTRIBUTES = struct.Struct("=IIQiIQQQII")  # struct sched_attr of linux/sched/types.h


@contextlib.contextmanager
def batch() -> Iterator[None]:
    """Processes that this thread starts meanwhile are of the batch policy, with all that they start."""
    changed = _batch(0)
    try:
        yield
    finally:
        if changed:
            _normal(0)


def become_batch() -> bool:
    """Put every thread of this process under the batch policy, and all that they start; whether that was possible."""
    changed = [_batch(thread) for thread in _threads()]
    return all(changed)


def become_normal() -> None:
    """Undo what was inherited: these threads interrupt those of the batch policy, and are not interrupted by them."""
    for thread in _threads():
        _normal(thread)


def _threads() -> list[int]:
    folder = Path("/proc/self/task")
    return [int(entry.name) for entry in folder.iterdir()] if folder.is_dir() else []


def _batch(thread: int) -> bool:
    """0: the calling thread. Only from the ordinary policy: who runs this under another has chosen it."""
    with contextlib.suppress(OSError, AttributeError):  # a thread that has ended, a system that has no policies
        if os.sched_getscheduler(thread) != os.SCHED_OTHER:
            return False
        nice = os.getpriority(os.PRIO_PROCESS, thread)
        os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))
        number = SETATTR.get(platform.machine())
        if number is not None:  # else without the longer slice
            given = ATTRIBUTES.pack(ATTRIBUTES.size, os.SCHED_BATCH, 0, nice, 0, SLICE, 0, 0, 0, 0)
            ctypes.CDLL(None).syscall(number, thread, given, 0)
        return True
    return False


def _normal(thread: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        if os.sched_getscheduler(thread) == os.SCHED_BATCH:
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
