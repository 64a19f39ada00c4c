"""A canary beside the stable version, in one replica: who answers which image, and what is counted of both."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from serve.inference.inference_service import Outcome, Served
from serve.problems import Problem
from serve.versions import traffic
from serve.versions.traffic import KEPT, Canary, CanaryComparison, Side

if TYPE_CHECKING:
    from serve.versions.loaded_model import Loaded

log = logging.getLogger("serve")


class Count:
    """One side of a canary, counted. For use on the event loop."""

    def __init__(self, version: str) -> None:
        self.version, self.requests, self.errors = version, 0, 0
        self.seconds: deque[float] = deque(maxlen=KEPT)

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Count a request. What the client is to blame for (400s, and 503 of a full queue) is no error of a version."""
        started = time.perf_counter()
        self.requests += 1
        try:
            yield
        except Problem as problem:
            self.errors += problem.status == 504
            raise
        except Exception:
            self.errors += 1
            raise
        self.seconds.append(time.perf_counter() - started)

    def side(self) -> Side:
        """The counts."""
        return Side(version=self.version, requests=self.requests, errors=self.errors, seconds=tuple(self.seconds))


class CanaryTrial:
    """A canary beside the stable version."""

    def __init__(self, stable: Loaded, canary: Loaded, percent: float) -> None:
        self.stable, self.canary, self.percent = stable, canary, percent
        self.counts = {stable: Count(stable.version), canary: Count(canary.version)}
        self.compared, self.agreed, self.difference = 0, 0, 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def is_of(self, wanted: Canary) -> bool:
        """True if this is what is wanted."""
        found = Canary(version=self.canary.version, checkpoint=self.canary.checkpoint, percent=self.percent)
        return found == wanted

    async def answer(self, images: Sequence[bytes | np.ndarray], key: bytes) -> tuple[list[Outcome], Loaded]:
        """By the canary or the stable version. What the canary fails at is counted, and the stable version answers."""
        if traffic.to_canary(key, self.percent):
            try:
                with self.counts[self.canary].timed(), self.canary.inference.admit():
                    served = await self.canary.inference.answer(images)
            except Problem as problem:
                if problem.status not in (503, 504):
                    raise
            except Exception:
                log.exception("version %s failed", self.canary.version)
            else:
                self._compare(images, served)
                return served, self.canary
        with self.counts[self.stable].timed():
            return await self.stable.inference.answer(images), self.stable

    def _compare(self, images: Sequence[bytes | np.ndarray], served: Sequence[Outcome]) -> None:
        """Ask the stable version too, behind the client's back, unless it is busy: its clients come first."""
        inference = self.stable.inference
        if len(self._tasks) >= 4 or inference.in_progress > inference.settings.max_waiting // 4:
            return

        async def compare() -> None:
            with contextlib.suppress(Problem):
                for old, new in zip(await inference.answer(images), served, strict=True):
                    if isinstance(old, Served) and isinstance(new, Served):
                        self._count(old.answer.probabilities, new.answer.probabilities)

        task = asyncio.ensure_future(compare())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _count(self, old: np.ndarray, new: np.ndarray) -> None:
        names = [c.wnid for c in self.canary.classifier.classes], [c.wnid for c in self.stable.classifier.classes]
        self.compared += 1
        self.agreed += names[0][int(new.argmax())] == names[1][int(old.argmax())]
        if names[0] == names[1]:
            self.difference += float(np.abs(old - new).max())

    def comparison(self) -> CanaryComparison:
        """The counts so far."""
        return CanaryComparison(
            stable=self.counts[self.stable].side(),
            canary=self.counts[self.canary].side(),
            compared=self.compared,
            agreed=self.agreed,
            difference=self.difference,
        )
