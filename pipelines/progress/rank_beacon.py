"""The ranks of a training, for those who watch it: where each runs, and its stack when somebody asks."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from pipelines.cluster import ray_internals
from pipelines.progress.postings import ASK, RANK, STACK
from resnet.frozen import Frozen

LOOK = 3.0  # seconds between two looks at whether somebody asks: a millisecond each


class RankPlace(Frozen):
    """The process of a rank. node: Ray's id; began: when the process did, by psutil, for numbers are used again."""

    rank: int
    world_size: int
    node: str
    host: str
    pid: int
    began: float

    @property
    def shown(self) -> str:
        """`rank 1 on node-3 (process 4711)`."""
        return f"rank {self.rank} on {self.host} (process {self.pid})"


class RankStack(Frozen):
    """An answer of a rank. asked: the question; frames: `file:line function` each, the innermost last."""

    pid: int
    asked: str
    frames: tuple[str, ...]


class Beacon:
    """Within `with`: tells where this rank runs, and answers with the stack of this thread, which trains."""

    def __init__(self, run: str, rank: int, world_size: int) -> None:
        self.run, self.rank, self.world_size = run, rank, world_size
        self._trains, self._answered = threading.get_ident(), ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="beacon", daemon=True)

    def __enter__(self) -> Self:
        import psutil
        import ray

        place = RankPlace(
            rank=self.rank,
            world_size=self.world_size,
            node=ray.get_runtime_context().get_node_id(),
            host=socket.gethostname(),
            pid=os.getpid(),
            began=psutil.Process().create_time(),
        )
        ray_internals.put(f"{RANK}{self.run}/{self.rank}", place.model_dump_json().encode())
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end.set()

    def _follow(self) -> None:
        while not self._end.wait(LOOK):
            with contextlib.suppress(Exception):  # whatever a head that is away throws: it is asked again
                self._answer()

    def _answer(self) -> None:
        asked = (ray_internals.get(ASK + self.run) or b"").decode()
        if asked and asked != self._answered:
            answer = RankStack(pid=os.getpid(), asked=asked, frames=frames_of(self._trains))
            ray_internals.put(f"{STACK}{self.run}/{self.rank}", answer.model_dump_json().encode())
            self._answered = asked


def frames_of(thread: int) -> tuple[str, ...]:
    """The stack of a thread of this process, the innermost frame last; empty: it has ended."""
    frame = sys._current_frames().get(thread)
    frames = traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False) if frame else ()
    return tuple(f"{found.filename}:{found.lineno} {found.name}" for found in reversed(frames))


def places_of(run: str) -> list[RankPlace]:
    """The ranks of a run's present workers, in order; empty: none has begun. A smaller group leaves out old ones."""
    values = (ray_internals.get(key) for key in ray_internals.keys_of(f"{RANK}{run}/"))
    found = sorted((RankPlace(**json.loads(v)) for v in values if v is not None), key=lambda place: place.rank)
    return found[: found[0].world_size] if found and found[0].rank == 0 else []


def ask_for_stacks(run: str, question: str) -> None:
    """Ask all ranks of a run for their stacks. question: another one each time."""
    ray_internals.put(ASK + run, question.encode())


def stacks_of(run: str, question: str, places: Sequence[RankPlace]) -> dict[int, tuple[str, ...]]:
    """The answers to a question so far, by rank."""
    found: dict[int, tuple[str, ...]] = {}
    for place in places:
        value = ray_internals.get(f"{STACK}{run}/{place.rank}")
        answer = RankStack(**json.loads(value)) if value is not None else None
        if answer is not None and (answer.asked, answer.pid) == (question, place.pid):
            found[place.rank] = answer.frames
    return found
