"""The cores that a process may keep busy: by its affinity and its container's CPU quota, not by the machine's count.

A thread more than the quota has cores is no gain: when the quota of a period (100 ms) is spent, the kernel stops all
threads until the next one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc/self")


def usable_cores(proc: Path = PROC) -> int:
    """Cores for this process's threads, at least 1: the least of its affinity and the whole cores of its quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(proc)
    return cores if quota is None else max(1, min(cores, int(quota)))


def cpu_quota(proc: Path = PROC) -> float | None:
    """The least CPU quota of the control groups that this process is in, in cores; None where none is set.

    proc: a folder with the files `cgroup` and `mountinfo`, as the kernel writes them. Other systems have none.
    """
    found = [quota for folder in _groups(proc) if (quota := _quota(folder)) is not None]
    return min(found, default=None)


def _groups(proc: Path) -> Iterator[Path]:
    """Folders of this process's control groups for CPUs, of version 1 and 2, each with those that it lies in."""
    paths: dict[str, str] = {}  # by controller; of version 2 by ""
    for line in _lines(proc / "cgroup"):
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    for line in _lines(proc / "mountinfo"):
        mount, _, system = line.partition(" - ")
        kind, _, options = system.split(" ", 2)
        if kind == "cgroup2":
            path = paths.get("")
        elif kind == "cgroup" and "cpu" in options.split(","):
            path = paths.get("cpu")
        else:
            continue
        if path is not None:
            root, top = (_unescaped(word) for word in mount.split(" ")[3:5])
            yield from _upwards(path, root, Path(top))


def _upwards(path: str, root: str, top: Path) -> Iterator[Path]:
    """The group at `path` and those above it, in a mount at `top` that shows what lies below `root`.

    A container may see the whole host's path beside a mount of its own group alone, or `/..` above its own.
    """
    inside = os.path.relpath(path, root)
    below = [] if inside.startswith("..") or inside == "." else inside.split("/")
    for depth in range(len(below), -1, -1):
        yield top.joinpath(*below[:depth])


def _quota(folder: Path) -> float | None:
    """Cores that a group may use: cpu.max of version 2, cpu.cfs_quota_us of version 1; None: any number."""
    words = [word for line in _lines(folder / "cpu.max") for word in line.split()]
    if not words:
        words = [*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")]
    if len(words) != 2 or not words[0].isdigit() or not words[1].isdigit():  # `max 100000`, -1
        return None
    return int(words[0]) / max(1, int(words[1]))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _unescaped(word: str) -> str:
    """A path of mountinfo, where a space is written as \\040."""
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), word)
