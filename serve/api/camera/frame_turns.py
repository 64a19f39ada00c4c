"""The turns of a replica's cameras: one after another, and no more at once than have an answer before their deadline.

All frames go through one network. To let in more than it computes before the deadline would make every one of them
late; so a frame waits outside, where a newer one of the same camera may take its place, until its answer is expected in
time. What an image takes is learnt from the answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

from serve.api.camera.newest_frame import NewestFrame

LEARNT = 0.1  # share of the latest answer in the estimate: the last twenty count


class FrameTurns:
    """The order of the frames.

    deadline: seconds from a frame's arrival; in_progress: images that the network has before it; each: seconds of an
    image, as measured: those of an answer, shared by all images that were in progress with it.
    """

    def __init__(self, deadline: float, in_progress: Callable[[], int]) -> None:
        self.deadline = deadline
        self.each = 0.0
        self._in_progress = in_progress
        self._line: dict[NewestFrame, asyncio.Future[None]] = {}  # in the order in which they came
        self._granted = 0  # that have not begun yet

    async def wait(self, place: NewestFrame) -> bool:
        """Return when the camera's frame may be computed: True; False where it is late. A newer frame has more time."""
        turn = self._line.setdefault(place, asyncio.get_running_loop().create_future())
        try:
            self.look()
            while not turn.done():
                assert place.waiting is not None, "the frame waits until its camera takes it"
                left = self.deadline - place.waiting.age
                if left <= 0:
                    return False
                await asyncio.wait({turn}, timeout=left)
            return True
        finally:
            self._line.pop(place, None)
            if turn.done():
                self._granted -= 1

    def look(self) -> None:
        """Let in whoever fits, first come, first served. Called when an image ends, and when a frame comes."""
        for place, turn in self._line.items():
            ahead = self._in_progress() + self._granted
            if turn.done() or place.waiting is None:
                continue
            # With nothing ahead a frame is let in even if the estimate says it will be late: how else to learn better?
            if ahead == 0 or place.waiting.age + self.each * (ahead + 1) <= self.deadline:
                turn.set_result(None)
                self._granted += 1

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Around the work on a frame: learn from the time that it takes, and let in the next."""
        began, together = time.perf_counter(), self._in_progress() + 1
        try:
            yield
            one = (time.perf_counter() - began) / together
            self.each = one if not self.each else (1 - LEARNT) * self.each + LEARNT * one
        finally:
            asyncio.get_running_loop().call_soon(self.look)  # when its place is free

    def interval(self, cameras: int) -> float:
        """Seconds between two frames of one camera that can all be answered, with so many cameras."""
        return self.each * max(1, cameras)
