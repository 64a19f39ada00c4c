"""The wait of a training until its workers have room: its reason in words, and the end of its patience."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipelines.cluster.planning.known_nodes import nodes_up
from pipelines.cluster.planning.resource_plan import Node

EVERY = 4.0  # seconds between two looks
SOON = 4.0  # seconds of waiting that are not worth a word: Ray needs some itself to place workers


class RoomWatch:
    """Looks now and then whether the workers have room, says once what they wait for, and gives up in the end.

    short: what nodes lack, or None; minutes: how long it waits; taken: whether Ray holds workers back though the nodes
    have room, because others are on them.
    """

    def __init__(
        self,
        short: Callable[[Sequence[Node]], str | None],
        minutes: float,
        say: Callable[[str], None],
        nodes: Callable[[], Sequence[Node]] = nodes_up,
        taken: Callable[[], bool] | None = None,
    ) -> None:
        self.short, self.minutes, self.say, self.nodes = short, minutes, say, nodes
        self.taken = taken or has_waiting_workers
        self.looked = float("-inf")
        self.since: float | None = None
        self.said = False

    def look(self, now: float | None = None) -> str | None:
        """Why the training must end, or None. Cheap: it looks no more often than every EVERY seconds."""
        now = time.monotonic() if now is None else now
        if now - self.looked < EVERY:
            return None
        self.looked, lacking = now, self._lacking()
        if lacking is None:
            self._go_on()
            return None
        self.since = now if self.since is None else self.since
        if now - self.since >= 60 * self.minutes:
            return (
                f"the training waited {self.minutes:g} minutes (scaling.wait_minutes) for {lacking}; the same command "
                "goes on, where fewer workers or smaller ones fit with --scaling.workers or --scaling.cpus-per-worker"
            )
        if not self.said and now - self.since >= SOON:
            self.said = True
            self.say(f"Waiting for {lacking}; it ends after {self.minutes:g} minutes (--scaling.wait-minutes)")
        return None

    def _lacking(self) -> str | None:
        if (lacking := self.short(self.nodes())) is not None:
            return lacking
        return "room on the nodes that are up: others hold it" if self.taken() else None

    def _go_on(self) -> None:
        if self.said:
            self.say("The workers have room")
        self.since, self.said = None, False


def shortage_of_room(cpus: float, gpus: float, free: Mapping[str, float], patience: int) -> str | None:
    """The reason why a worker of Ray Data waits at present, in one line; None where there is room for one.

    cpus, gpus: of a worker; free: of the cluster; patience: seconds until Ray Data gives up.
    """
    wanted = {"CPU": cpus, "GPU": gpus}
    lacking = [name for name, count in wanted.items() if free.get(name, 0.0) < count]
    if not lacking:
        return None
    needs = " and ".join(f"{count:g} {name}" for name, count in wanted.items() if count)
    held = " and ".join(f"{free.get(name, 0.0):g} {name}" for name in lacking)
    return (
        f"Waiting for room: a worker needs {needs}, and free are {held}; it ends after "
        f"{patience / 60:g} minutes without progress"
    )


def waits_of(minutes: float) -> int:
    """The number of times that Ray Train may wait for its workers' places before it gives up; each takes a minute."""
    return max(0, math.ceil(minutes) - 1)


def has_waiting_workers() -> bool:
    """True if a group of workers of this job waits for a place."""
    import ray
    from ray.util.placement_group import placement_group_table

    here = ray.get_runtime_context().get_job_id()  # an id ends with that of its job
    table: Any = placement_group_table()
    return any(name.endswith(here) and found["state"] == "PENDING" for name, found in table.items())
