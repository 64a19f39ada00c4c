"""Ranks that hang: found where no status of a training comes for too long, named with their stacks, and ended.

Ray Train then starts the workers again from the newest checkpoint, as after any other loss of one. Without this a
stopped process is waited for ten minutes (Ray Train), a collective that blocks half an hour (torch).
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import psutil

from pipelines.progress.console import say
from pipelines.progress.postings import last_status
from pipelines.progress.rank_beacon import LOOK as BEAT
from pipelines.progress.rank_beacon import RankPlace, ask_for_stacks, places_of, stacks_of
from pipelines.progress.status import Status

log = logging.getLogger(__name__)
LOOK = 2.0  # seconds between two looks at the status
LATE = 20.0  # seconds between two looks after which it is this process that stood still, or the head that was away
STEPS = 20  # a step may take so many times its usual time,
SLOWER = 5  # and what is no step, or computes, so many times as long
ANSWER = 3 * BEAT + 1  # seconds in which a rank answers
REACHED = 60.0  # seconds in which a process of a node can be looked at
BOUNDED = 1800.0  # seconds: what waits for data or a bucket has limits of its own, the longest of them 15 minutes
MEASURED, USED = 1.0, 0.3  # seconds over which a process is looked at, and the part of a core that says it computes

# Where a rank waits for shards, or for a checkpoint to be written; and what calls it into waits for the other ranks.
FOR_DATA = re.compile(r"/pipelines/(?:stream/|storage\.py:|models/checkpoint_store\.py:)")
FOR_RANKS = re.compile(r"/torch/(?:distributed|autograd)/|/ray/train/")
OURS = re.compile(r"/(?:pipelines|resnet)/[\w/]+\.py:")

State = Literal["gone", "stopped", "busy", "idle", "unknown"]


class SilentRank(NamedTuple):
    """A rank of a training that has gone silent. frames: its answer, the innermost last; empty: it gave none."""

    place: RankPlace
    state: State
    frames: tuple[str, ...] = ()

    @property
    def waits_for_data(self) -> bool:
        """True if it reads shards, or waits for a checkpoint to be written."""
        return any(FOR_DATA.search(frame) for frame in self.frames)

    @property
    def waits_for_ranks(self) -> bool:
        """True if what our own code has called needs all ranks. Ray Train's own frames are below ours too."""
        ours = [place for place, frame in enumerate(self.frames) if OURS.search(frame)]
        return any(FOR_RANKS.search(frame) for frame in self.frames[ours[-1] if ours else 0 :])

    @property
    def sentence(self) -> str:
        """The rank, and what is the matter with it."""
        if self.state == "stopped":
            return f"{self.place.shown} is stopped (SIGSTOP, or a debugger)"
        if not self.frames:
            return f"{self.place.shown} does not answer"
        return f"{self.place.shown} hangs in {short(self.frames[-1])}"


def short(frame: str) -> str:
    """A frame without the folders in front of the package."""
    return re.sub(r"^.*/(?=(?:site-packages|resnet|pipelines|jobs)/)", "", frame).removeprefix("site-packages/")


def patience(status: Status, timeout: float) -> float:
    """Seconds without a status that are too long after this one."""
    steps = max(timeout, STEPS * (status.step_seconds or 0.0))
    # Its second status tells how long a step takes; an evaluation starts tasks, compiles, and waits for a bucket.
    return steps if status.phase == "training" and status.step_seconds is not None else SLOWER * steps


def hanging(views: Sequence[SilentRank], silent: float, limit: float) -> list[SilentRank]:
    """The ranks to end, after so many seconds of silence; none: there is nothing to do yet, or nothing for us."""
    if any(view.state in ("gone", "unknown") for view in views):
        return []  # of a lost process or node Ray hears by itself
    if stopped := [view for view in views if view.state == "stopped"]:
        return stopped
    if silent < BOUNDED and any(view.waits_for_data for view in views):
        return []
    # A rank that waits for the others is not the one they wait for, unless all wait.
    own = [view for view in views if view.frames and not view.waits_for_ranks]
    found = [view for view in views if not view.frames] or own or list(views)
    computes = any(view.state == "busy" for view in found)
    return found if silent >= limit * (SLOWER if computes else 1) else []


def process_state(pid: int, began: float) -> State:
    """The state of a process of this machine; takes a second."""
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - began) > 2 or (status := process.status()) in ("zombie", "dead"):
            return "gone"
        if status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP):
            return "stopped"
        return "busy" if process.cpu_percent(MEASURED) > 100 * USED else "idle"
    except psutil.NoSuchProcess:
        return "gone"
    except psutil.Error:
        return "unknown"


def end_process(pid: int, began: float) -> State:
    """Kill a process of this machine, a stopped one too."""
    if (state := process_state(pid, began)) not in ("gone", "unknown"):
        os.kill(pid, signal.SIGKILL)
    return state


def on_its_node(act: Callable[[int, float], State], places: Sequence[RankPlace]) -> list[State]:
    """process_state or end_process of some ranks, each by a task on its own node."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task: Any = ray.remote(num_cpus=0, max_retries=0)(act)
    asked: list[Any] = []
    for place in places:
        there = NodeAffinitySchedulingStrategy(place.node, soft=False)
        asked.append(task.options(scheduling_strategy=there).remote(place.pid, place.began))
    deadline, found = time.monotonic() + REACHED, list[State]()
    for answer in asked:
        try:
            found.append(ray.get(answer, timeout=max(0.1, deadline - time.monotonic())))
        except RayError:  # the node is gone, or too busy to say
            found.append("unknown")
    return found


class HangWatch:
    """Within `with`: ends ranks of a run that hang. timeout: seconds without a step, 0: never; tell: hears of it."""

    def __init__(self, run: str, timeout: float, tell: Callable[[str], None] = say) -> None:
        self.run, self.timeout, self.tell = run, timeout, tell
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="hang watch", daemon=True)
        self._mark: tuple[int, float] | None = None  # the last status that was new,
        self._since = self._looked = self._again = 0.0  # and since when it is the last, by this process's clock
        self._ended: tuple[int, float] | None = None  # the status after which ranks were ended
        self._trouble = ""

    def __enter__(self) -> Self:
        if self.timeout:
            self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _follow(self) -> None:
        while not self._end.wait(LOOK):
            try:
                self._look()
            except Exception as error:  # whatever a head that is away throws: a watch never harms its training
                self._mark = None
                if repr(error) != self._trouble:
                    self._trouble = repr(error)
                    log.warning("ranks of %s that hang are not looked for: %s", self.run, self._trouble)
            self._looked = time.monotonic()

    def _look(self) -> None:
        status, now = last_status(self.run), time.monotonic()
        mark = (status.process, status.time) if status is not None else None
        if mark != self._mark or now - self._looked > LATE:
            self._mark, self._since, self._again = mark, now, 0.0
        silent = now - self._since
        if status is None or mark == self._ended or status.phase == "done":
            return
        limit = patience(status, self.timeout)
        if silent < max(limit, self._again):
            return
        self._again = silent + limit / 4  # a look costs a task on each node
        views = self._views(status)
        if self._is_last(status) and (found := hanging(views, silent, limit)):
            self.tell(hang_report(status, silent, found, views))
            if "unknown" not in on_its_node(end_process, [view.place for view in found]):
                self._ended = mark

    def _is_last(self, status: Status) -> bool:
        """True if nothing has been heard since."""
        now = last_status(self.run)
        return now is not None and (now.process, now.time) == (status.process, status.time) and not self._end.is_set()

    def _views(self, status: Status) -> list[SilentRank]:
        """All ranks as they are; none where the workers are not those of the status, and so are about to begin."""
        places, question = places_of(self.run), uuid.uuid4().hex
        if not places or places[0].pid != status.process:
            return []
        ask_for_stacks(self.run, question)
        states = on_its_node(process_state, places)
        able = sum(state in ("busy", "idle") for state in states)
        deadline = time.monotonic() + ANSWER
        while len(stacks := stacks_of(self.run, question, places)) < able and time.monotonic() < deadline:
            if self._end.wait(BEAT / 6):
                break
        return [SilentRank(p, state, stacks.get(p.rank, ())) for p, state in zip(places, states, strict=True)]


def hang_report(status: Status, silent: float, found: Sequence[SilentRank], views: Sequence[SilentRank]) -> str:
    """The ranks that hang, with their stacks, and a line for each of the others."""
    names = "; ".join(view.sentence for view in found)
    goes_on = f"from {status.saved}" if status.saved else "from the newest checkpoint"
    lines = [
        f"{status.run}: nothing since step {status.step:,} ({status.phase}), {silent:.0f} s ago; {names}. "
        f"{'It is' if len(found) == 1 else 'They are'} ended, and the training goes on {goes_on}"
    ]
    for view in found:
        lines += [f"  {view.place.shown}" if view.frames else f"  {view.place.shown}: no stack"]
        lines += [f"    {short(frame)}" for frame in view.frames[-12:]]
    others = [view for view in views if view not in found]
    lines += [f"  {v.place.shown} waits in {short(v.frames[-1]) if v.frames else 'an unknown place'}" for v in others]
    return "\n".join(lines)
