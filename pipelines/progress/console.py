"""Progress of a long job on stderr: a live bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LINE = 3.0  # seconds between two lines where stderr is no terminal


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
