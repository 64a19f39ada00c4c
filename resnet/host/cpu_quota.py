"""The cores that a process may keep busy: by its affinity and its container's CPU quota, not by the machine's count.

A thread more than the quota has cores is no gain: when the quota of a period (100 ms) is spent, the kernel stops all
threads until the next one.
"""

from __future__ import annotations

import os
from pathlib import Path

from resnet.host.control_groups import PROC, control_groups, lines_of


def usable_cores(proc: Path = PROC) -> int:
    """Cores for this process's threads, at least 1: the least of its affinity and the whole cores of its quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(proc)
    return cores if quota is None else max(1, min(cores, int(quota)))


def cpu_quota(proc: Path = PROC) -> float | None:
    """The least CPU quota of the control groups that this process is in, in cores; None where none is set.

    proc: as of control_groups.
    """
    found = [quota for folder in control_groups("cpu", proc) if (quota := _quota(folder)) is not None]
    return min(found, default=None)


def _quota(folder: Path) -> float | None:
    """Cores that a group may use: cpu.max of version 2, cpu.cfs_quota_us of version 1; None: any number."""
    words = [word for line in lines_of(folder / "cpu.max") for word in line.split()]
    if not words:
        words = [*lines_of(folder / "cpu.cfs_quota_us"), *lines_of(folder / "cpu.cfs_period_us")]
    if len(words) != 2 or not words[0].isdigit() or not words[1].isdigit():  # `max 100000`, -1
        return None
    return int(words[0]) / max(1, int(words[1]))
