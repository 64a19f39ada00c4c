"""/v1/stream: frames of cameras in by a WebSocket, answers of the newest frame out."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, WebSocket
from pydantic import Field, TypeAdapter, ValidationError

from serve import problems
from serve.api.camera.camera_stream import CameraStream
from serve.api.camera.frame_turns import FrameTurns
from serve.api.clients import RateLimit
from serve.api.images_v1 import known_parameters, prediction_fields
from serve.inference.inference_service import Served
from serve.problems import Problem
from serve.settings import Args
from serve.versions.loaded_model import Loaded
from serve.versions.served_models import Models

PROTOCOL = "resnet.stream"  # the subprotocol that is agreed on where a client offers any
PATH = "/v1/stream"
TOP_K = TypeAdapter(Annotated[int, Field(ge=1, le=1000)])


class Cameras:
    """The cameras of one replica. close: tell all of them that the endpoint ends; from any thread."""

    def __init__(self, models: Models, args: Args, rate: RateLimit | None) -> None:
        self.models, self.args, self.rate = models, args, rate
        self.streams: set[CameraStream] = set()
        self.turns = FrameTurns(args.deadline / 1000, lambda: models.stable.inference.in_progress)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End all streams in order, and refuse new ones."""
        if self._loop is None:
            self._closing.set()
        else:
            self._loop.call_soon_threadsafe(self._closing.set)

    async def serve(self, socket: WebSocket) -> None:
        """One camera, from its first word to its last."""
        self._loop = asyncio.get_running_loop()
        try:
            top_k = self._checked(socket)
        except Problem as problem:
            await problems.response(socket.scope, problem)(socket.scope, socket.receive, socket.send)
            return
        await socket.accept(PROTOCOL if PROTOCOL in socket.scope.get("subprotocols", ()) else None)
        stream = CameraStream(
            socket, self.models, self.turns, lambda: self._wait(socket), self._interval, _Shown(top_k)
        )
        self.streams.add(stream)
        metrics = self.models.stable.inference.metrics
        metrics.streams.inc()
        try:
            await stream.run(self._closing)
        finally:
            self.streams.discard(stream)
            metrics.streams.dec()
            for name, count in stream.counts.items():
                if name != "frames":
                    metrics.frames.labels(name).inc(count)
            socket.scope["stream"] = stream.counts  # for the log

    def _checked(self, socket: WebSocket) -> int:
        """top_k of a connection. Problem for one that is refused."""
        known_parameters(socket, ("top_k",))
        if self._closing.is_set():
            raise Problem(503, "the endpoint ends; another may take its place", retry_after=5)
        if len(self.streams) >= self.args.max_streams:
            raise Problem(503, f"{len(self.streams)} cameras are connected already; try again", retry_after=5)
        require_own_page(socket, self.args.cors_origins)
        given = socket.query_params.get("top_k", "5")
        try:
            return TOP_K.validate_python(given)
        except ValidationError:
            raise Problem(422, f"top_k must be a whole number from 1 to 1000, got {given[:80]!r}") from None

    def _wait(self, socket: WebSocket) -> float:
        """Take one request of the client's rate: 0, or the seconds until there is one."""
        client = socket.scope.get("client_name") or (socket.client.host if socket.client else "")
        return 0.0 if self.rate is None else self.rate.wait(client)

    def _interval(self) -> float:
        return self.turns.interval(len(self.streams))


class _Shown:
    """The answer's fields of a network's output."""

    def __init__(self, top_k: int) -> None:
        self.top_k = top_k

    def __call__(self, by: Loaded, outcome: Any) -> dict[str, Any]:
        assert isinstance(outcome, Served), "a frame alone is answered, or raises"
        best = by.classifier.best(outcome.answer.probabilities, self.top_k)
        return {"predictions": [prediction_fields(prediction) for prediction in best]}


def require_own_page(socket: WebSocket, allowed: tuple[str, ...]) -> None:
    """Problem 403 for a script of another web page: a browser lets it open a WebSocket to anywhere, and says whose."""
    origin = socket.headers.get("origin")
    if origin is None or "*" in allowed or origin in allowed:
        return
    if urlsplit(origin).netloc != socket.headers.get("host"):
        raise Problem(403, f"scripts of {origin[:200]} may not ask; --cors-origins allows them")


def camera_routes(cameras: Cameras) -> APIRouter:
    """The WebSocket, and a word for those who ask for it by HTTP."""
    routes = APIRouter()

    @routes.websocket(PATH)
    async def stream(socket: WebSocket) -> None:
        await cameras.serve(socket)

    @routes.api_route(PATH, methods=["GET", "POST"], include_in_schema=False)
    async def by_http() -> None:
        problem = Problem(426, f"{PATH} is a WebSocket: each message in is an image, each message out is JSON")
        problem.headers |= {"Upgrade": "websocket", "Connection": "Upgrade"}
        raise problem

    return routes
