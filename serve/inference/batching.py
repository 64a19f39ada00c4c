"""Fill the network's batches from concurrent requests.

While the network is busy, images gather; when it is free it takes what is there, up to the largest batch. A lone image
starts at once. Where others are announced, being decoded at this moment, the network waits for them for at most
PATIENCE: with few clients the batches would break up into a first image and the rest, again and again. For the same
reason it expects for RETURN that clients who were answered together ask again together. It does not wait once half of
the largest batch is there: the rest is decoded while that is computed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
PATIENCE = 0.02  # seconds: eight photographs are decoded in it
RETURN = 0.005  # seconds from an answer to the same client's next request, on the same machine


@dataclass(frozen=True)
class Timed(Generic[Result]):
    """A result and its times in seconds: waiting for the network, and in it. size: items of its batch."""

    result: Result
    queued: float
    computed: float
    size: int


@dataclass(frozen=True, slots=True)
class _Entry(Generic[Item, Result]):
    """An item that waits since then, and who waits for it."""

    item: Item
    future: asyncio.Future[Timed[Result]]
    since: float


class Batcher(Generic[Item, Result]):
    """Runs `compute` over at most `largest` items at once, in one thread of its own, off the event loop."""

    def __init__(self, compute: Callable[[Sequence[Item]], Sequence[Result]], largest: int) -> None:
        self._compute = compute
        self._largest = largest
        self._enough = max(1, largest // 2)  # not worth a wait: larger batches gain a few percent
        self._waiting: deque[_Entry[Item, Result]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._drain: asyncio.Task[None] | None = None
        self._coming = 0
        self._changed: asyncio.Event | None = None  # while a batch gathers
        self._last = 0  # items of the last batch
        self._ended = 0.0  # when that was computed

    @contextlib.contextmanager
    def announce(self) -> Iterator[None]:
        """While an item is made ready: a batch that has room waits for it."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            if self._changed is not None and self._coming == 0:
                self._changed.set()

    async def submit(self, item: Item) -> Timed[Result]:
        """The result of one item. It is not computed if the caller is cancelled while it waits."""
        future: asyncio.Future[Timed[Result]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Entry(item, future, time.perf_counter()))
        if self._changed is not None and len(self._waiting) >= min(self._enough, self._last):
            self._changed.set()
        if self._drain is None or self._drain.done():
            self._drain = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        """Batch after batch until nothing waits."""
        while batch := await self._gathered():
            started = time.perf_counter()
            loop = asyncio.get_running_loop()
            try:
                results = await loop.run_in_executor(self._thread, self._compute, [entry.item for entry in batch])
            except Exception as error:  # each waiting request reports it
                for entry in batch:
                    if not entry.future.done():
                        entry.future.set_exception(error)
                continue
            self._last, self._ended = len(batch), time.perf_counter()
            computed = self._ended - started
            for entry, result in zip(batch, results, strict=True):
                if not entry.future.done():
                    entry.future.set_result(Timed(result, started - entry.since, computed, len(batch)))

    async def _gathered(self) -> list[_Entry[Item, Result]]:
        """The next batch: half full at least, or with all that is announced or expected, or as it is after a while."""
        started = time.perf_counter()
        while 0 < len(self._waiting) < self._enough:
            expected = self._ended + RETURN if len(self._waiting) < self._last else 0.0
            left = (started + PATIENCE if self._coming else expected) - time.perf_counter()
            if left <= 0:
                break
            self._changed = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)
        self._changed = None
        return self._take()

    def _take(self) -> list[_Entry[Item, Result]]:
        """The oldest items that somebody still waits for."""
        batch = []
        while self._waiting and len(batch) < self._largest:
            entry = self._waiting.popleft()
            if not entry.future.done():
                batch.append(entry)
        return batch

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
