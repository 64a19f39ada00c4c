"""Figures of a rank's loader, for those who watch a training: what decoding costs, and how many batches wait."""

from __future__ import annotations

from pipelines.stream.augmentation import Batch
from pipelines.stream.in_memory import Draws


class LoaderFigures:
    """Adds up what batches say of their making, from one reading to the next. A set in memory says nothing."""

    def __init__(self) -> None:
        self._images, self._seconds, self._ready, self._asked = 0, 0.0, 0, 0

    def took(self, batch: Batch | Draws) -> None:
        """A batch that the rank has got."""
        if isinstance(batch, Draws) or not batch.seconds:
            return
        self._images += len(batch.labels)
        self._seconds += batch.seconds
        if batch.ready is not None:
            self._ready, self._asked = self._ready + batch.ready, self._asked + 1

    def take(self) -> dict[str, float]:
        """The figures since the last call, by name; empty where there are none."""
        found: dict[str, float] = {}
        if self._images:
            found["decode_seconds"] = self._seconds / self._images
        if self._asked:
            found["ready_batches"] = self._ready / self._asked
        self._images, self._seconds, self._ready, self._asked = 0, 0.0, 0, 0
        return found
