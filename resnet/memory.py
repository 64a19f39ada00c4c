"""How a process that computes on a CPU in a thread keeps its memory: variables of its environment, read by glibc."""

from __future__ import annotations

# What threads free, glibc hands back to the system: each step would take its memory anew, a page fault for each 4 KiB,
# a fifth of the time of a step (docs/decisions.md). One arena, nothing handed back, huge pages. Others take no notice.
KEPT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
