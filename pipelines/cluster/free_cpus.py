"""The CPUs that a cluster has left for data tasks beside its training workers, as it is when the workers start."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

PATIENCE = 2.0  # seconds within which a node answers that is there


class TaskBudget(NamedTuple):
    """CPUs of a rank's data tasks. each: CPUs of one; tasks: how many at a time."""

    each: float
    tasks: int

    @classmethod
    def of(cls, cpus: float) -> TaskBudget:
        """On nodes that have room for tasks of a whole CPU."""
        each = min(1.0, cpus)
        return cls(each, max(1, int(cpus / each)) if each else 1)


def fitting(free: Iterable[float], ranks: int, cpus: float) -> TaskBudget:
    """The most that each of `ranks` ranks may hold, so that all tasks of all ranks run side by side.

    free: CPUs of each node that no worker holds; cpus: at most, for a rank. A task may wait, holding its CPUs, until
    its consumer takes what it made, and ranks wait for each other in every step: a task for which there is no room, or
    a rank whose tasks hold the room of another's, would let all wait for ever.
    """
    left = [max(0.0, round(amount, 4)) for amount in free]
    sizes = {min(1.0, cpus)} | {amount / count for amount in left for count in range(1, ranks + 1)}
    best = TaskBudget(0.0, 1)  # nowhere is room: a task that holds nothing runs beside the workers
    for size in sizes:
        each = int(size * 1e4) / 1e4  # Ray counts in ten-thousandths
        if not 0.01 <= each <= min(1.0, cpus):
            continue
        places = sum(int(amount / each + 1e-6) for amount in left)
        tasks = min(places // ranks, max(1, int(cpus / each + 1e-6)))
        if tasks and (each * tasks, each) > (best.each * best.tasks, best.each):
            best = TaskBudget(each, tasks)
    return best


def here(cpus: float) -> TaskBudget:
    """CPUs of this training worker's data tasks: `cpus` at most. Called by all ranks before they read.

    The driver has counted the cluster's CPUs, but that may be long ago, or just after a node was lost: for 13 s, seen
    on Ray 2.60, the dead one counts beside the one that took its place. Tasks of a size that fits nowhere never run.
    """
    import ray
    from ray.util.placement_group import placement_group_table

    group = ray.util.get_current_placement_group()
    assert group is not None, "Ray Train places its workers in a group"
    workers: Any = placement_group_table(group)
    holders = workers["bundles_to_node_id"]
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")}
    others = [node for name, node in nodes.items() if name not in holders.values()]
    with ThreadPoolExecutor(16) as pool:
        lost = {node["NodeID"] for node, there in zip(others, pool.map(_answers, others), strict=True) if not there}
    free = {name: node["Resources"]["CPU"] for name, node in nodes.items() if name not in lost}
    for number, name in holders.items():
        free[name] = free.get(name, 0.0) - workers["bundles"][number].get("CPU", 0.0)
    return fitting(free.values(), len(holders), cpus)


def _answers(node: dict[str, Any]) -> bool:
    """True if a node's raylet is there: Ray itself finds out some ten seconds later."""
    try:
        with socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=PATIENCE):
            return True
    except OSError:
        return False
