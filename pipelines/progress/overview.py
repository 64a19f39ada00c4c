"""The state of a cluster on one screen: its nodes, its trainings, how fast they are, how long they still take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from pipelines.progress.postings import failure, posted_runs, posted_sweeps, was_stopped
from pipelines.progress.rank_beacon import places_of
from pipelines.progress.status import Status, clock, remaining
from pipelines.progress.text_table import text_table
from resnet.frozen import Frozen

SILENT = 60.0  # seconds without a status after which a training is called silent; rank 0 posts about once a second

State = Literal["training", "silent", "finished", "failed", "stopped"]
DAY = 86_400.0
NAMED = 3  # hosts of a training that are named


class OverviewOptions(Frozen):
    """Options of jobs/show_status.py."""

    every: Annotated[float | None, Field(gt=0, description="seconds: show it again and again, until Ctrl-C")] = None
    all: Annotated[bool, Field(description="also trainings that ended more than a day ago")] = False


class TrainingProgress(Frozen):
    """A training as the cluster knows it. phase: what it does, or did last; hosts: workers by host; age: seconds since
    rank 0's last word; reason: why it failed; saved: the newest checkpoint; trouble: why a newer one is not written."""

    run: str
    state: State
    phase: str
    step: int
    total: int
    error: float
    images_per_second: float
    seconds_left: float | None
    age: float
    reason: str = ""
    hosts: dict[str, int] = Field(default_factory=dict)
    saved: str | None = None
    trouble: str | None = None


class Overview(Frozen):
    """nodes: that answer; resources and free: amounts by name, of CPU and GPU; sweeps: the last word of each."""

    nodes: int
    lost_nodes: int
    resources: dict[str, float]
    free: dict[str, float]
    trainings: tuple[TrainingProgress, ...]
    sweeps: tuple[str, ...] = ()


def state_of(
    status: Status, reason: str | None, now: float, hosts: Sequence[str] = (), *, stopped: bool = False
) -> TrainingProgress:
    """A training's state from its last status, the reason of its failure, and the time in seconds since 1970.

    hosts: of each worker; stopped: whether it was asked to end.
    """
    age = max(0.0, now - status.time)
    state: State = "failed" if reason else "finished" if status.phase == "done" else "training"
    if state == "training" and stopped:
        state = "stopped"
    if state == "training" and age > SILENT:
        state = "silent"
    running = state == "training"
    return TrainingProgress(
        run=status.run,
        state=state,
        phase=status.phase,
        step=status.step,
        total=status.total,
        error=status.error,
        images_per_second=status.images_per_second if running else 0.0,
        seconds_left=status.seconds_left if running else 0.0,
        age=age,
        reason=reason or "",
        hosts=Counter(hosts) if state in ("training", "silent") else {},
        saved=status.saved,
        trouble=status.trouble,
    )


def _seen(status: Status, now: float) -> TrainingProgress:
    """A training as the store of this cluster has it."""
    run = status.run
    hosts = [place.host for place in places_of(run)]
    return state_of(status, failure(run), now, hosts, stopped=was_stopped(run))


def overview(asked: OverviewOptions) -> Overview:
    """Look at the cluster that this process is connected to."""
    import ray

    now = time.time()
    trainings = [_seen(status, now) for status in posted_runs()]
    kept = [t for t in trainings if asked.all or t.state == "training" or t.age < DAY]
    nodes: Sequence[dict[str, Any]] = ray.nodes()
    total, free = ray.cluster_resources(), ray.available_resources()
    return Overview(
        nodes=sum(bool(node["Alive"]) for node in nodes),
        lost_nodes=sum(not node["Alive"] for node in nodes),
        resources={name: total[name] for name in ("CPU", "GPU") if name in total},
        free={name: free.get(name, 0.0) for name in ("CPU", "GPU") if name in total},
        trainings=tuple(sorted(kept, key=lambda t: (ORDER.index(t.state), t.run))),
        sweeps=tuple(_aged(sentence, now - at) for at, sentence in posted_sweeps() if asked.all or now - at < DAY),
    )


def _aged(sentence: str, age: float) -> str:
    return f"{sentence} ({clock(age)} ago)" if age > SILENT else sentence


ORDER: tuple[State, ...] = ("training", "silent", "failed", "stopped", "finished")


def overview_text(seen: Overview) -> str:
    """The screen: a line for the nodes, one for each sweep, a table of the trainings."""
    parts = [f"{seen.free[name]:g} of {amount:g} {name}s free" for name, amount in seen.resources.items()]
    lost = f" ({seen.lost_nodes} lost)" if seen.lost_nodes else ""
    lines = [f"{seen.nodes} node{'s' if seen.nodes != 1 else ''}{lost}, {', '.join(parts)}", *seen.sweeps]
    if not seen.trainings:
        return "\n".join([*lines, "no training has posted a status on this cluster"])
    header = ("training", "state", "step", "done", "error %", "img/s", "on", "")
    return "\n".join([*lines, "", *text_table("llrrrrll", header, [_cells(t) for t in seen.trainings])])


def _cells(t: TrainingProgress) -> tuple[str, ...]:
    notes = {
        "training": remaining(t.seconds_left),
        "silent": f"nothing heard for {clock(t.age)}",
        "failed": t.reason,
        "stopped": f"{clock(t.age)} ago, saved: {t.saved or 'nothing yet'}",
        "finished": f"{clock(t.age)} ago",
    }
    note = notes[t.state] + (f"; {t.trouble}" if t.trouble and t.state == "training" else "")
    error = "-" if t.error != t.error else f"{t.error:.2f}"
    speed = f"{t.images_per_second:,.0f}" if t.images_per_second else "-"
    done = f"{t.step / max(1, t.total):.0%}"
    hosts = [f"{count} x {host}" if count > 1 else host for host, count in t.hosts.items()]
    where = ", ".join(hosts[:NAMED]) + (f" and {len(hosts) - NAMED} more" if len(hosts) > NAMED else "")
    state = t.phase if t.state == "training" else t.state
    return t.run, state, f"{t.step:,} of {t.total:,}", done, error, speed, where, note
