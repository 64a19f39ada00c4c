"""Threads that decode images beside the event loop.

An executor's result costs two futures, a lock and a byte through a pipe, and that byte wakes the event loop for each
image while the next one is being decoded. Here the loop is told once of all that was decoded before it had time.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(slots=True, eq=False)
class _Task(Generic[Given, Made]):
    """One call, whose caller waits for the future."""

    given: Given
    future: asyncio.Future[Made]
    made: Made | None = None
    error: Exception | None = None


class Decoders(Generic[Given, Made]):
    """Calls a function in threads of its own, first come, first served. All callers share one event loop."""

    def __init__(self, function: Callable[[Given], Made], threads: int) -> None:
        self._function = function
        self._tasks: SimpleQueue[_Task[Given, Made] | None] = SimpleQueue()
        self._done: deque[_Task[Given, Made]] = deque()
        self._told = False  # the loop, which has not looked yet
        self._threads = threads
        for i in range(threads):
            threading.Thread(target=self._work, name=f"decode_{i}", daemon=True).start()

    async def run(self, given: Given) -> Made:
        """What the function makes of it, or its exception. It is not called if the caller is cancelled before."""
        task: _Task[Given, Made] = _Task(given, asyncio.get_running_loop().create_future())
        self._tasks.put(task)
        return await task.future

    def close(self) -> None:
        """End the threads when they have done what is waiting."""
        for _ in range(self._threads):
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if task.future.cancelled():
                continue
            try:
                task.made = self._function(task.given)
            except Exception as error:  # the caller's to judge
                task.error = error
            self._done.append(task)
            if not self._told:
                self._told = True
                try:
                    task.future.get_loop().call_soon_threadsafe(self._hand_over)
                except RuntimeError:  # the loop is closed: nobody waits
                    self._told = False

    def _hand_over(self) -> None:
        self._told = False  # before the last look: what is done after it tells the loop again
        while self._done:
            task = self._done.popleft()
            if task.future.done():
                continue
            if task.error is None:
                task.future.set_result(task.made)  # pyright: ignore[reportArgumentType]  made where there is no error
            else:
                task.future.set_exception(task.error)
