"""The memory that this process may still take: of the machine, of its control group (a container), of its own limit."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from resnet.host.control_groups import control_groups

ENDLESS = 2**60  # bytes: a version 1 group without a limit says a number near 2**63


class FreeMemory(NamedTuple):
    """free: bytes that can still be taken; limit: bytes in all; of: whose limit it is, in words."""

    free: int
    limit: int
    of: str


def free_memory(proc: Path = Path("/proc")) -> FreeMemory | None:
    """The tightest of the limits that hold for this process; None on a system that tells none (not Linux)."""
    found = [*_machine(proc), *_groups(proc), *_own_limit(proc)]
    return min(found, default=None)


def gib(size: float) -> str:
    """Bytes for a person: `1.94 GiB`, below one `312 MiB`."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _machine(proc: Path) -> Iterator[FreeMemory]:
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:
        return
    sizes = {name: 1024 * int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    if "MemAvailable" in sizes:
        yield FreeMemory(sizes["MemAvailable"], sizes["MemTotal"], "this machine")


def _groups(proc: Path) -> Iterator[FreeMemory]:
    """The process's control group and those above it, as far as they can be seen: of version 2, or of version 1."""
    for folder in control_groups("memory", proc / "self"):
        yield from _group(folder, "memory.max", "memory.current")
        yield from _group(folder, "memory.limit_in_bytes", "memory.usage_in_bytes")


def _group(folder: Path, most: str, taken: str) -> Iterator[FreeMemory]:
    try:
        limit, used = (folder / most).read_text().strip(), int((folder / taken).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return
    if limit == "max" or int(limit) >= ENDLESS:
        return
    cached = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))  # the kernel gives it up at need
    yield FreeMemory(max(0, int(limit) - used + cached), int(limit), "its control group")


def _own_limit(proc: Path) -> Iterator[FreeMemory]:
    """RLIMIT_AS, `ulimit -v`: of addresses, which a process reserves before it uses them."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return
    try:
        pages = int((proc / "self" / "statm").read_text().split()[0])
    except (OSError, IndexError):
        return
    yield FreeMemory(max(0, limit - pages * os.sysconf("SC_PAGE_SIZE")), limit, "its own limit (ulimit -v)")
