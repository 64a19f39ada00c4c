"""Progress of a long job on stderr: a live bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from pipelines.job_notice import add_facts
from pipelines.progress.postings import forget, last_status
from pipelines.progress.status import LINE, Status

MOST = 60.0  # seconds between two lines where stderr is no terminal, in a long job; LINE at first
POLL = 0.5  # seconds between two looks


class Meter:
    """Counts images. done: those that were there at the start, which do not count for the rate."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.what, self.total, self.done, self.began = what, total, done, done
        self.start = self.printed = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    @property
    def rate(self) -> float:
        """Images per second since the start."""
        return (self.done - self.began) / max(1e-9, time.monotonic() - self.start)

    def add(self, images: int) -> None:
        """So many more are done."""
        self.done += images
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=self.rate)
        elif self.done >= self.total or time.monotonic() - self.printed > LINE:
            self.printed = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        """One line of text with bar and ETA."""
        part = self.done / max(1, self.total)
        bar = "━" * round(24 * part) + "╌" * (24 - round(24 * part))
        left = (self.total - self.done) / self.rate if self.rate else 0.0
        days, left = divmod(left, 86400)
        clock = (f"{days:.0f} d " if days else "") + time.strftime("%H:%M:%S", time.gmtime(left))
        return f"{self.what}  {bar} {part:4.0%}  {self.done:,}/{self.total:,}  {self.rate:,.0f} img/s  {clock} left"


@contextmanager
def meter(what: str, total: int, done: int = 0) -> Iterator[Meter]:
    """A Meter that is shown while the block runs."""
    counter = Meter(what, total, done)
    if not sys.stderr.isatty():
        yield counter
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]:,.0f} img/s"),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        counter._bar, counter._task = bar, bar.add_task(what, total=total, completed=done, rate=0.0)
        yield counter


def live_on_terminal(**options: Any) -> Any:
    """A display on standard error that is renewed in place, a rich.live.Live that has begun; None: no terminal."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.live import Live

    live = Live(console=Console(stderr=True), **options)
    live.start()
    return live


def say(text: str) -> None:
    """A line for the person who waits."""
    print(text, file=sys.stderr, flush=True)


class Watch:
    """Within `with`: shows the status of a run on stderr, and hands each new one to `seen`.

    On a terminal it is one line, always the newest; elsewhere lines are printed now and then.
    """

    def __init__(self, run: str, seen: Callable[[Status], None], *, show: bool = True) -> None:
        self.run, self.seen, self.show = run, seen, show
        self._live: Any = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="watch", daemon=True)
        self._began, self._printed, self._seen, self._phase = time.monotonic(), 0.0, 0.0, ("", -1)
        self._trouble: str | None = None

    def __enter__(self) -> Self:
        forget(self.run)
        if self.show:
            self._live = live_on_terminal(auto_refresh=False)
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end.set()
        self._thread.join()
        if self._live is not None:
            self._live.stop()

    def _follow(self) -> None:
        while not self._end.wait(POLL):
            self._look()
        self._look()

    def _look(self) -> None:
        if (status := last_status(self.run)) is None:
            return
        add_facts(run=status.run, step=status.step)
        self.seen(status)
        self._tell(status)
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text(status.line(), no_wrap=True, overflow="ellipsis"), refresh=True)
            return
        now, phase = time.monotonic(), status.phase.partition(",")[0]
        # A line every few seconds at first, in a long job ever more rarely; each phase behind the last step has one.
        wait = min(MOST, max(LINE, (now - self._began) / 20))
        last = status.step == status.total and (phase, status.step) != self._phase
        if self.show and (last or now - self._printed > wait) and status.time != self._seen:
            say(status.line())
            self._printed, self._seen, self._phase = now, status.time, (phase, status.step)

    def _tell(self, status: Status) -> None:
        """Say once when checkpoints cannot be written, and when they can be again."""
        before, self._trouble = self._trouble, status.trouble
        if status.trouble == before or not self.show:
            return
        if status.trouble is not None:
            good = f"the last good one is {status.saved or 'none yet'}"
            goes = (
                "it is tried again, and the training waits" if status.step == status.total else "the training goes on"
            )
            say(f"{status.run}: {status.trouble}; {good}, {goes}")
        elif status.saved is not None:  # a worker that has just started again has written none
            say(f"{status.run}: checkpoints are written again: {status.saved}")
