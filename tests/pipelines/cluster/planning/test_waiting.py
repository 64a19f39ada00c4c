"""A wait for nodes says what it waits for within ten seconds, and ends after the time that was stated."""

from typing import Any

from pipelines.cluster.planning.resource_plan import Node, NodeKind, Wishes, plan_training, with_added
from pipelines.cluster.planning.waiting import RoomWatch, has_waiting_workers, shortage_of_room, waits_of
from pipelines.run import Scaling


def watched(up: list[Node], said: list[str], taken: list[bool]) -> RoomWatch:
    plan = plan_training(with_added([Node(8)], [NodeKind(8, 48, 4)]), Wishes(Scaling(workers=4), 8))
    return RoomWatch(plan.short, 30, said.append, lambda: up, lambda: taken[0])


def first(watch: RoomWatch, seconds: range) -> tuple[int, str] | None:
    """When and why the training ends, asked every second."""
    return next(((second, why) for second in seconds if (why := watch.look(float(second))) is not None), None)


def test_what_is_waited_for_is_said_once_and_the_wait_ends() -> None:
    up, said, taken = [Node(8)], [], [False]
    watch = watched(up, said, taken)
    assert first(watch, range(11)) is None
    assert said == [
        "Waiting for 4 workers with 1 GPU and 6 CPUs each; the nodes that are up have room for 0; it ends after 30 "
        "minutes (--scaling.wait-minutes)"
    ]
    ended = first(watch, range(11, 3600))
    assert ended is not None
    assert 1800 <= ended[0] <= 1810
    assert ended[1].startswith("the training waited 30 minutes (scaling.wait_minutes) for 4 workers with 1 GPU")
    assert len(said) == 1
    assert [waits_of(minutes) for minutes in (0.5, 1, 2, 2.5, 60)] == [0, 0, 1, 2, 59], "beside the first"


def test_a_node_that_comes_ends_the_wait_and_one_that_is_lost_begins_another() -> None:
    up, said, taken = [Node(8)], [], [False]
    watch = watched(up, said, taken)
    assert first(watch, range(1500)) is None
    up.append(Node(48, 4))
    assert first(watch, range(1500, 9000)) is None
    assert [line.split()[0] for line in said] == ["Waiting", "The"]
    up.pop()
    assert first(watch, range(9000, 10000)) is None
    assert [line.split()[0] for line in said] == ["Waiting", "The", "Waiting"]


def test_what_others_hold_is_waited_for_too() -> None:
    said: list[str] = []
    watch = watched([Node(48, 4)], said, [True])
    assert first(watch, range(11)) is None
    assert said[0].startswith("Waiting for room on the nodes that are up: others hold it; it ends after 30 minutes")
    passing: list[str] = []
    brief = watched([Node(48, 4)], passing, taken := [True])
    assert first(brief, range(3)) is None
    taken[0] = False
    assert first(brief, range(3, 100)) is None
    assert passing == [], "a placement takes Ray a moment"


def test_a_group_that_fits_nowhere_waits(ray_local: Any) -> None:
    from ray.util.placement_group import placement_group, remove_placement_group

    assert not has_waiting_workers()
    group = placement_group([{"CPU": 64}])
    assert not group.wait(0.5)
    assert has_waiting_workers()
    remove_placement_group(group)
    assert not has_waiting_workers()


def test_a_worker_of_ray_data_that_must_wait_is_told_for_what() -> None:
    assert shortage_of_room(0.5, 1, {"CPU": 0.5, "GPU": 1.0, "memory": 1e9}, 600) is None
    assert shortage_of_room(0.9, 0, {"CPU": 1.0}, 600) is None
    assert shortage_of_room(0.5, 1, {"CPU": 8.0}, 600) == (
        "Waiting for room: a worker needs 0.5 CPU and 1 GPU, and free are 0 GPU; it ends after 10 minutes without "
        "progress"
    )
    assert shortage_of_room(0.9, 0, {"CPU": 0.5}, 3600) == (
        "Waiting for room: a worker needs 0.9 CPU, and free are 0.5 CPU; it ends after 60 minutes without progress"
    )
