"""The newest frame of one camera: what is not taken when the next one comes is stale, and dropped."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CameraFrame:
    """An encoded image of a camera. number: from 1, in the order in which they came; arrived: time.perf_counter()."""

    number: int
    data: bytes
    arrived: float

    @property
    def age(self) -> float:
        """Seconds since it came."""
        return time.perf_counter() - self.arrived


class NewestFrame:
    """A place for one frame. count: frames that came; dropped: those that a newer one has replaced."""

    def __init__(self) -> None:
        self.count = self.dropped = 0
        self.waiting: CameraFrame | None = None
        self._there = asyncio.Event()

    def put(self, data: bytes) -> None:
        """Take the place of the frame that waits."""
        self.count += 1
        self.dropped += self.waiting is not None
        self.waiting = CameraFrame(self.count, data, time.perf_counter())
        self._there.set()

    async def there(self) -> None:
        """Return when a frame waits."""
        await self._there.wait()

    def take(self) -> CameraFrame:
        """The frame that waits; the place is free."""
        frame, self.waiting = self.waiting, None
        assert frame is not None, "somebody has waited for it"
        self._there.clear()
        return frame
