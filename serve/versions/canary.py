"""Versions beside the stable one, in one replica: which answers which image, and what is counted of each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from resnet.training.checkpoint import CLASSIFICATION
from serve.inference.inference_service import Outcome, Served
from serve.problems import Problem
from serve.versions import traffic
from serve.versions.traffic import KEPT, Canary, CanaryComparison, Side

if TYPE_CHECKING:
    from serve.versions.loaded_model import Loaded

BEHIND = 4  # images that are computed at once without a client who waits
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


class AnswerAgreement:
    """Answers of two versions to the same images, compared."""

    def __init__(self, stable: Loaded, other: Loaded) -> None:
        self._has_classes = stable.classifier.task == CLASSIFICATION
        self._names = [[c.wnid for c in each.classifier.classes] for each in (stable, other)]
        self.compared, self.agreed, self.difference = 0, 0, 0.0

    def count(self, stable: Sequence[Outcome], other: Sequence[Outcome]) -> None:
        """Outcomes of the same images by both; boxes and masks are not compared."""
        for old, new in zip(stable, other, strict=True):
            if self._has_classes and isinstance(old, Served) and isinstance(new, Served):
                self._count(old.answer.probabilities, new.answer.probabilities)

    def _count(self, old: np.ndarray, new: np.ndarray) -> None:
        names = self._names
        self.compared += 1
        self.agreed += names[0][int(old.argmax())] == names[1][int(new.argmax())]
        if names[0] == names[1]:
            self.difference += float(np.abs(old - new).max())


class CanaryTrial:
    """Versions beside the stable one. beside: each with its share."""

    def __init__(self, stable: Loaded, beside: Mapping[Canary, Loaded]) -> None:
        self.stable, self.beside = stable, dict(beside)
        self._count = Count(stable.version)
        self._counts = {each: Count(each.version) for each in beside}
        self._agreements = {each: AnswerAgreement(stable, loaded) for each, loaded in beside.items()}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def wanted(self) -> tuple[Canary, ...]:
        """The versions beside the stable one, with their shares."""
        return tuple(self.beside)

    async def answer(self, images: Sequence[bytes | np.ndarray], key: bytes) -> tuple[list[Outcome], Loaded]:
        """By a canary or the stable version. What a canary fails at is counted, and the stable version answers."""
        canary = traffic.answering(key, self.wanted)
        served = None if canary is None else await self._by_canary(canary, images)
        if canary is not None and served is not None:
            self._behind(self.stable, images, lambda old: self._agreements[canary].count(old, served))
            return served, self.beside[canary]
        with self._count.timed():
            served = await self.stable.inference.answer(images)
        for shadow in traffic.shadows(key, self.wanted):
            self._compare_shadow(shadow, images, served)
        return served, self.stable

    async def _by_canary(self, canary: Canary, images: Sequence[bytes | np.ndarray]) -> list[Outcome] | None:
        """The answers; None where the canary failed. Problem of the images, which every version would have."""
        inference = self.beside[canary].inference
        try:
            with self._counts[canary].timed(), inference.admit():
                return await inference.answer(images)
        except Problem as problem:
            if problem.status not in (503, 504):
                raise
        except Exception:
            log.exception("version %s failed", canary.version)
        return None

    def _compare_shadow(self, shadow: Canary, images: Sequence[bytes | np.ndarray], served: Sequence[Outcome]) -> None:
        self._behind(
            self.beside[shadow],
            images,
            lambda new: self._agreements[shadow].count(served, new),
            self._counts[shadow],
        )

    def _behind(
        self,
        loaded: Loaded,
        images: Sequence[bytes | np.ndarray],
        then: Callable[[list[Outcome]], None],
        count: Count | None = None,
    ) -> None:
        """Ask another version too, behind the client's back, unless it is busy: clients come first."""
        inference = loaded.inference
        if len(self._tasks) >= BEHIND or inference.in_progress > inference.settings.max_waiting // 4:
            return

        async def ask() -> None:
            try:
                with contextlib.nullcontext() if count is None else count.timed(), inference.admit():
                    found = await inference.answer(images)
            except Problem:
                return
            except Exception:
                log.exception("version %s failed", loaded.version)
                return
            then(found)

        task = asyncio.ensure_future(ask())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def comparisons(self) -> tuple[CanaryComparison, ...]:
        """The counts so far, of each version beside the stable one."""
        return tuple(
            CanaryComparison(
                stable=self._count.side(),
                canary=self._counts[each].side(),
                compared=agreement.compared,
                agreed=agreement.agreed,
                difference=agreement.difference,
            )
            for each, agreement in self._agreements.items()
        )
