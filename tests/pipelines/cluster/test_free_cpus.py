"""What is left of a cluster for data tasks: whatever the nodes, no rank can take the room of another."""

from typing import Any

import hypothesis.strategies as some
import pytest
from hypothesis import given

from pipelines.cluster import free_cpus
from pipelines.cluster.free_cpus import TaskBudget, fitting

CPUS = some.floats(0, 8).map(lambda cpus: round(cpus, 2))


@pytest.mark.parametrize(
    ("free", "ranks", "cpus", "expected"),
    [
        ([1.0], 2, 0.5, TaskBudget(0.5, 1)),  # one node of two CPUs, two workers of half a CPU each
        ([0.4, 0.4], 2, 0.9, TaskBudget(0.4, 1)),  # the driver counted a node that was lost: 0.9 would fit nowhere
        ([0.0, 32.0], 8, 4.0, TaskBudget(1.0, 4)),  # GPU nodes that workers fill, and one for the data
        ([16.0], 4, 3.0, TaskBudget(1.0, 3)),
        ([0.0, 0.0], 2, 0.5, TaskBudget(0.0, 1)),
    ],
)
def test_known_clusters(free: list[float], ranks: int, cpus: float, expected: TaskBudget) -> None:
    assert fitting(free, ranks, cpus) == expected


@given(free=some.lists(CPUS, min_size=1, max_size=6), ranks=some.integers(1, 8), cpus=some.floats(0.05, 8))
def test_all_tasks_of_all_ranks_run_side_by_side(free: list[float], ranks: int, cpus: float) -> None:
    found = fitting(free, ranks, cpus)
    assert found.tasks >= 1
    assert found.each <= min(1.0, cpus) + 1e-9
    assert found.each * found.tasks <= cpus + 1e-3
    if found.each:
        assert sum(int(amount / found.each + 1e-6) for amount in free) >= ranks * found.tasks
    else:
        assert sum(int(amount / 0.01) for amount in free) < ranks, "there was room"


def test_a_node_that_does_not_answer_is_none(ray_local: Any) -> None:
    """Ray counts a node for some ten seconds after it was killed."""
    import ray

    (node,) = ray.nodes()
    assert free_cpus._answers(node)
    assert not free_cpus._answers(node | {"NodeManagerPort": 1})
