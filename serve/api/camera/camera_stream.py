"""One camera's WebSocket: a task reads frames as they come, another answers the newest."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from serve.api.camera.frame_turns import FrameTurns
from serve.api.camera.newest_frame import CameraFrame, NewestFrame
from serve.problems import Problem
from serve.versions.loaded_model import Loaded
from serve.versions.served_models import Models

NOT_BINARY, GOING_AWAY = 1003, 1001  # of RFC 6455
Answer = dict[str, Any]


class CameraStream:
    """The conversation with one camera.

    allow: takes one request of the client's rate, 0 or the seconds to wait; interval: seconds between two frames that
    can be answered at the moment; shown: the answer's fields of a model's output.
    """

    def __init__(
        self,
        socket: WebSocket,
        models: Models,
        turns: FrameTurns,
        allow: Callable[[], float],
        interval: Callable[[], float],
        shown: Callable[[Loaded, Any], Answer],
    ) -> None:
        self.socket, self.models, self.turns = socket, models, turns
        self.allow, self.interval, self.shown = allow, interval, shown
        self.place = NewestFrame()
        self.outcomes: Counter[str] = Counter()  # answered, late, refused
        self.max_bytes = models.args.max_bytes

    @property
    def counts(self) -> dict[str, int]:
        """Frames that came, and what became of them."""
        return {"frames": self.place.count, "dropped": self.place.dropped} | {
            name: self.outcomes[name] for name in ("answered", "late", "refused")
        }

    async def run(self, closing: asyncio.Event) -> None:
        """Until the camera goes, or the endpoint ends."""
        tasks = [asyncio.create_task(part) for part in (self._read(), self._answer_newest(), closing.wait())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[2] in done:
                await self.socket.close(GOING_AWAY, "the endpoint ends; another may take its place")
            for task in done:
                task.result()
        except (WebSocketDisconnect, RuntimeError):  # it went while something was sent: Starlette raises either
            pass
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        """Take each frame as it comes, so that none grows old in a queue of the network."""
        while (message := await self.socket.receive())["type"] != "websocket.disconnect":
            data = message.get("bytes")
            if data is None:
                await self.socket.close(NOT_BINARY, "a frame must be a binary message: the bytes of an image")
                return
            self.place.put(data)
            self.turns.look()

    async def _answer_newest(self) -> None:
        while True:
            await self.place.there()
            in_time = await self.turns.wait(self.place)
            frame = self.place.take()
            dropped = self.place.dropped
            if in_time:
                await self._answer(frame, dropped)
            else:
                await self._refuse(frame, self._too_late(), "late")

    async def _answer(self, frame: CameraFrame, dropped: int) -> None:
        """Answer one frame by its deadline, in whichever way. Its turn lasts as long as it is computed."""
        work = asyncio.create_task(self._computed(frame))
        try:
            await asyncio.wait({work}, timeout=self.turns.deadline - frame.age)
            if not work.done():
                await self._refuse(frame, self._too_late(), "late")
                with contextlib.suppress(Problem):
                    await work
                return
            await self._send(frame, "answered", work.result())
        except Problem as problem:
            await self._refuse(frame, problem, "refused")
        finally:
            work.cancel()

    async def _computed(self, frame: CameraFrame) -> Answer:
        if len(frame.data) > self.max_bytes:
            raise Problem(413, f"a frame must have at most {self.max_bytes:,} bytes, got {len(frame.data):,}")
        if seconds := self.allow():
            raise Problem(429, f"too many frames; try again in {seconds:.1f} s", retry_after=seconds)
        with self.turns.measured(), self.models.stable.inference.admit():
            (outcome,), by = await self.models.answer([frame.data])
        return by.signature | self.shown(by, outcome)

    def _too_late(self) -> Problem:
        return Problem(504, f"no answer within {1000 * self.turns.deadline:g} ms")

    async def _refuse(self, frame: CameraFrame, problem: Problem, outcome: str) -> None:
        error = {"status": problem.status, "detail": problem.detail}
        await self._send(frame, outcome, {"error": error})

    async def _send(self, frame: CameraFrame, outcome: str, answer: Answer) -> None:
        """Send an answer with the counts so far and the pace that the endpoint keeps."""
        self.outcomes[outcome] += 1
        told = {"frame": frame.number} | answer | self.counts
        pace = {"ms": round(1000 * frame.age, 2), "interval_ms": round(1000 * self.interval(), 2)}
        await self.socket.send_json(told | pace)
