"""The progress of a sweep as one table: live on a terminal, now and then elsewhere, with an ETA of the whole."""

from __future__ import annotations

import contextlib
import heapq
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from pipelines.job_notice import add_facts
from pipelines.progress.console import live_on_terminal, say
from pipelines.progress.postings import forget, last_status, note_stop, post_sweep
from pipelines.progress.status import Status, clock, remaining
from pipelines.progress.text_table import text_table
from pipelines.progress.training_metrics import export_sweep

if TYPE_CHECKING:
    from rich.table import Table

POLL = 0.5  # seconds between two looks
EVERY = 30.0  # seconds between two tables where stderr is no terminal
TOLD = 5.0  # seconds between two words to those who look at the cluster

Standing = Literal["finished", "stopped", "failed", "running", "starting", "waiting"]
STANDINGS: tuple[Standing, ...] = get_args(Standing)


@dataclass
class Row:
    """A trial as the table shows it. work: multiply-adds of an image; images: of its whole training; note: why."""

    run: str
    work: float
    images: float
    standing: Standing = "waiting"
    status: Status | None = None
    top1_error: float | None = None
    note: str = ""

    @property
    def images_left(self) -> float:
        """Training images that are still to come."""
        done = self.status.step / max(1, self.status.total) if self.status else 0.0
        return self.images * (1 - done)

    @property
    def speed(self) -> float:
        """Multiply-adds of forward passes a second; 0 where it is not known."""
        return self.status.images_per_second * self.work if self.status else 0.0

    def take(self, status: Status) -> None:
        """Take over what rank 0 has posted."""
        self.status = status
        if errors := [row["top1_error"] for row in status.rows if row["top1_error"] is not None]:
            self.top1_error = float(errors[-1])
        if self.standing in ("waiting", "starting"):
            self.standing = "running"

    def cells(self) -> tuple[str, ...]:
        """Trial, state, epoch, training error, validation error, speed, time left or a note."""
        s, note = self.status, textwrap.shorten(self.note, 60)
        error = "-" if self.top1_error is None else f"{self.top1_error:.2f}"
        if s is None:
            return self.run, self.standing, "-", "-", error, "-", note
        running = self.standing == "running"
        return (
            self.run,
            s.phase if running else self.standing,
            f"{s.epoch:.1f} of {s.epochs:.4g}",
            "-" if s.error != s.error else f"{s.error:.2f}",
            error,
            f"{s.images_per_second:,.0f}" if running else "-",
            remaining(s.seconds_left) if running else note,
        )


def seconds_left(rows: Sequence[Row], slots: int) -> float | None:
    """Until the last trial ends, at the present speed, with `slots` trials at a time; None before any has a speed."""
    speeds = [row.speed for row in rows if row.standing == "running" and row.speed > 0]
    if not speeds:
        return None
    pace = sum(speeds) / len(speeds)
    running = [row for row in rows if row.standing in ("starting", "running")]
    ends = [row.images_left * row.work / (row.speed or pace) for row in running]
    free = sorted(ends + [0.0] * (slots - len(ends)))
    heapq.heapify(free)
    for row in rows:
        if row.standing == "waiting":
            heapq.heapreplace(free, free[0] + row.images_left * row.work / pace)
    return max(free)


@dataclass
class Board:
    """Within `with`: shows the trials of a sweep on stderr. slots: trials at a time."""

    name: str
    rows: dict[str, Row]
    slots: int
    show: bool = True
    write: Callable[[str], Any] = field(default=say)

    def __post_init__(self) -> None:
        self._end, self._printed, self._changed, self._told = threading.Event(), 0.0, True, 0.0
        self._thread = threading.Thread(target=self._follow, name="board", daemon=True)
        self._live: Any = None

    def __enter__(self) -> Self:
        for run in self.rows:
            forget(run)
        add_facts(run=self.name)
        if self.show:
            self._live = live_on_terminal(refresh_per_second=2)
        if self._live is not None:
            self._live.update(self.table())
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self._end.set()
        self._thread.join()
        with contextlib.suppress(Exception):  # of a Ray that has ended: the sweep's own end is what counts
            stopped = kind is not None and issubclass(kind, KeyboardInterrupt)
            for run in self.running() if stopped else ():  # the trials' processes end before they say so
                note_stop(run)
            self._tell(f"ended: {self.summary()}")
        if self._live is not None:
            self._live.update(self.table(), refresh=True)
            self._live.stop()

    def stand(self, run: str, standing: Standing, note: str = "") -> None:
        """A trial has started or ended."""
        row = self.rows[run]
        row.standing, row.note, self._changed = standing, note, True

    def running(self) -> list[str]:
        """The trials in progress."""
        return [run for run, row in list(self.rows.items()) if row.standing == "running"]

    def _follow(self) -> None:
        while not self._end.wait(POLL):
            self.look()
        self.look()

    def look(self) -> None:
        """Take over what trials have posted, and show it."""
        for run, row in list(self.rows.items()):
            if row.standing in ("waiting", "starting", "running") and (status := last_status(run)) is not None:
                row.take(status)
        if time.monotonic() - self._told > TOLD:
            self._tell(self.summary())
        if self._live is not None:
            self._live.update(self.table())
        elif self.show and (self._changed or time.monotonic() - self._printed > EVERY):
            self._changed, self._printed = False, time.monotonic()
            self.write(self.text())

    def _tell(self, sentence: str) -> None:
        """Say how the sweep is, to Prometheus and to jobs/show_status.py."""
        self._told = time.monotonic()
        rows = list(self.rows.values())
        errors = [row.top1_error for row in rows if row.top1_error is not None]
        export_sweep(self.name, self.counts().items(), min(errors, default=None))
        post_sweep(self.name, sentence)

    def counts(self) -> dict[Standing, int]:
        """Trials by how they stand."""
        counts: dict[Standing, int] = dict.fromkeys(STANDINGS, 0)
        for row in list(self.rows.values()):
            counts[row.standing] += 1
        return counts

    def summary(self) -> str:
        """`table6: 1 of 4 trials finished, 2 running, 1 waiting; about 1:02:03 left`."""
        counts = self.counts()
        parts = [f"{counts.pop('finished')} of {len(self.rows)} trials finished"]
        parts += [f"{n} {standing}" for standing, n in counts.items() if n]
        left = seconds_left(list(self.rows.values()), self.slots)
        eta = f"; about {clock(left)} left" if left else ""
        return f"{self.name}: {', '.join(parts)}{eta}"

    def table(self) -> Table:
        """The table for a terminal: every trial."""
        from rich.table import Table

        table = Table(title=self.summary(), title_justify="left", title_style="bold", box=None, pad_edge=False)
        for title, align in zip(HEADER, ALIGN, strict=True):
            table.add_column(title, justify="left" if align == "l" else "right", no_wrap=title != HEADER[-1])
        for row in list(self.rows.values()):
            table.add_row(*row.cells(), style=STYLES.get(row.standing))
        return table

    def text(self) -> str:
        """The same as plain text: the summary, and the trials that run or have just failed."""
        shown = [row.cells() for row in list(self.rows.values()) if row.standing in ("starting", "running", "failed")]
        if not shown:
            return self.summary()
        lines = text_table(ALIGN, HEADER, shown)
        return "\n".join([self.summary(), *(f"  {line}" for line in lines)])


HEADER = ("trial", "state", "epoch", "training error %", "validation error %", "img/s", "")
ALIGN = "lllrrrl"
STYLES = {"waiting": "dim", "finished": "green", "stopped": "yellow", "failed": "bold red"}
