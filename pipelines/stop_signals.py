"""A job that is asked to end, by Ctrl-C, SIGTERM or a closed terminal: it saves first; asked again, it ends at once."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from resnet.host.temporary_folder import remove_own_folders

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
STATUS = 130  # exit status of a job that was asked to end, whatever the signal
ONE_REQUEST = 0.5  # seconds within which several signals are one: a closing terminal sends SIGHUP more than once
PATIENCE = {signal.SIGINT: 60.0}  # seconds that a save may take: a person who waits can ask again,
OTHERS_PATIENCE = 15.0  # a scheduler kills after its grace period

Save = Callable[[float], str]


class Stopped(KeyboardInterrupt):
    """The job was asked to end. The text says how its work goes on; empty where the job itself says it."""


class _Requests:
    """The requests to this process. saves: innermost last; before_end: what a second request still does."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.saves: list[Save] = []
        self.before_end: list[Callable[[], object]] = []
        self.depth = 0
        self.prog, self.after_stop = "", "the same call goes on"
        self.is_late = self.is_stopped = False
        self.waiting: int | None = None

    def hear(self, number: int, _: object = None) -> None:
        """The handler of the signals, in the main thread."""
        if self.first is not None:
            if time.monotonic() - self.first > ONE_REQUEST:
                self.end_at_once("ended at once", STATUS)
            return
        self.first = time.monotonic()
        if self.is_late:
            self.waiting = number
        else:
            self.stop(number)

    def stop(self, number: int) -> NoReturn:
        """Save what runs, and end."""
        self.is_stopped = True
        raise Stopped(self.saves[-1](PATIENCE.get(signal.Signals(number), OTHERS_PATIENCE)) if self.saves else "")

    def end_at_once(self, sentence: str, status: int) -> NoReturn:
        """End this process without waiting for anything."""
        with contextlib.suppress(OSError):
            print(sentence, file=sys.stderr, flush=True)
        for act in self.before_end:
            with contextlib.suppress(Exception):  # the end comes in any case
                act()
        remove_own_folders()
        os._exit(status)


_requests = _Requests()


def begin(prog: str, after_stop: str) -> None:
    """From here to the end of this process: the first request to end raises Stopped, the second ends the process.

    A signal that is ignored, as by nohup, stays ignored. after_stop: how the work of this program goes on.
    """
    _requests.prog, _requests.after_stop = prog, after_stop
    _requests.depth += 1
    atexit.register(_end)  # the first to be registered is the last to be called
    listen()


def _end() -> None:
    """The last act of a process that was stopped. Threads of libraries that were cut short in the middle of something
    may crash while Python takes itself down."""
    if _requests.is_stopped:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(STATUS)


@contextlib.contextmanager
def not_in_between() -> Iterator[None]:
    """Within: what must not be cut short, such as Ray's start. The first request to end is heard at its end."""
    listen()
    _requests.is_late = True
    try:
        yield
    finally:
        _requests.is_late = False
        listen()
    if (number := _requests.waiting) is not None:
        _requests.waiting = None
        _requests.stop(number)


def end_soon() -> None:
    """All is done: a request to end while the process takes itself down ends it at once."""
    _requests.first = _requests.first or -ONE_REQUEST


@contextlib.contextmanager
def stoppable(save: Save) -> Iterator[None]:
    """Within: Stopped has the text that `save` gives, which saves the state of what runs within so many seconds, and
    says how that goes on. Of several the innermost is asked. Threads other than the main one hear no signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _requests.depth += 1
    _requests.saves.append(save)
    listen()
    try:
        yield
    finally:
        _requests.depth -= 1
        _requests.saves.remove(save)
        if _requests.depth == 0:  # a program of its own, which hears signals as it did before
            _requests.first = None
            for number, handler in before.items():
                signal.signal(number, handler)


def listen() -> None:
    """Take the signals back from a library that has set handlers of its own, such as Ray at its start."""
    if _requests.depth == 0 or threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _requests.hear)


def is_job() -> bool:
    """True if this process is a job, which may end itself."""
    return bool(_requests.prog)


def after_stop() -> str:
    """The sentence on how the work of this program goes on, as it said at its begin."""
    return _requests.after_stop


def end_at_once(sentence: str) -> NoReturn:
    """End this process, from any thread: its work cannot go on, and may hang. Exit status 1."""
    _requests.end_at_once(f"{_requests.prog}: {sentence}" if _requests.prog else sentence, 1)


def before_ending_at_once(act: Callable[[], object]) -> None:
    """Also do this where the process is to end at once; it must not wait."""
    _requests.before_end.append(act)
