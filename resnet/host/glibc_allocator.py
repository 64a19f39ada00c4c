"""Memory of a process that computes on a CPU in a thread: settings of glibc, which others do not know."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

# What threads free, glibc hands back to the system: each step would take its memory anew, a page fault for each 4 KiB,
# a fifth of the time of a step (docs/decisions/engine.md). One arena, nothing handed back, huge pages. Others take no
# notice.
KEPT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
ARENA_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD = -8, -3, -1  # malloc.h
MOST = 2**25  # bytes: the largest threshold that glibc takes from a running process


@cache
def keep() -> bool:
    """The same for a process that runs already, as one of Ray's for a task; whether its C library can."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(ARENA_MAX, 1)
    mallopt(MMAP_THRESHOLD, MOST)
    mallopt(TRIM_THRESHOLD, 2**31 - 1)
    return True
