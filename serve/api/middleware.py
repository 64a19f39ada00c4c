"""Middleware before every route: a request's id, its line in the log, the client's key and rate, the body's limit.

Plain ASGI, for a wrapper class that buffers would hold each body twice.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve import problems
from serve.api.clients import Keys, RateLimit
from serve.metrics import Metrics
from serve.problems import Problem

log = logging.getLogger("serve.access")
REQUEST_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
SWITCHED = 101  # of a WebSocket that was accepted
KEY_PROTOCOL = "base64url.bearer.authorization."  # and the key, as Kubernetes has it
OPEN = {"/", "/docs", "/openapi.json", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}


def logger() -> logging.Logger:
    """The access log: one JSON object a line on standard error."""
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return log


class AsRouted:
    """HEAD as GET without the content, and a path without a slash at its end, for each route: no redirect, which would
    make a client send its body twice, and no 405 for a load balancer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "websocket":
            return await self.app({**scope, "asked": ("GET", scope["path"])}, receive, send)
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        # A copy: the server decides by its own whether an answer may have content
        inner = {**scope, "asked": (scope["method"], scope["path"])}
        if len(scope["path"]) > 1 and scope["path"].endswith("/"):
            inner["path"] = scope["path"].rstrip("/") or "/"
        if scope["method"] != "HEAD":
            return await self.app(inner, receive, send)
        inner["method"] = "GET"

        async def without_content(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        return await self.app(inner, receive, without_content)


class ForHttp:
    """A word for gRPC clients that ask this port. Behind HAProxy their calls arrive as requests of HTTP/1.1."""

    WORD = "this port speaks HTTP: use tritonclient.http, or the port of --grpc-port (docs: The endpoint, gRPC)"

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        kind = Headers(scope=scope).get("content-type", "") if scope["type"] == "http" else ""
        if not kind.startswith("application/grpc"):
            return await self.app(scope, receive, send)
        unimplemented = {"grpc-status": "12", "grpc-message": self.WORD}  # in a head without a body
        return await Response(status_code=200, media_type="application/grpc", headers=unimplemented)(
            scope, receive, send
        )


class AccessLog:
    """One JSON object a line on standard error, what gathers in a moment by one write: a write a request is 0.05 ms."""

    WAIT = 0.2  # seconds that a line may wait; a process that is killed loses so much

    def __init__(self) -> None:
        self._log = logger()
        self._lines: list[str] = []

    def add(self, line: dict[str, Any]) -> None:
        """Called on the event loop."""
        self._lines.append(json.dumps(line))
        if len(self._lines) == 1:
            asyncio.get_running_loop().call_later(self.WAIT, self.flush)

    def flush(self) -> None:
        """Write what is there."""
        lines, self._lines = self._lines, []
        if lines:
            self._log.info("\n".join(lines))


class RequestLog:
    """Gives each request an id (the client's own X-Request-ID where it is sane), counts it, and logs it at its end."""

    def __init__(self, app: ASGIApp, metrics: Callable[[Scope], Metrics], access_log: bool, echo_id: bool) -> None:
        self.app, self.metrics, self.echo_id = app, metrics, echo_id
        self.log = AccessLog() if access_log else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        started = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        scope["request_id"] = request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        status = 500  # of a request whose handler raised

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "websocket.accept":
                status = SWITCHED
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                if self.echo_id:
                    MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, with_id)
        except Exception:
            logging.getLogger("serve").exception("request %s failed", request_id)
            raise
        finally:
            self._record(scope, status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")  # a label for each path that somebody tries has no end
        metrics = self.metrics(scope)
        metrics.requests.labels(route, str(status)).inc()
        if scope["type"] == "http":  # a camera stays for minutes
            metrics.latency.labels(route).observe(seconds)
        if self.log is None:
            return
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request_id": scope["request_id"],
            "method": scope["asked"][0],
            "path": scope["asked"][1],
            "status": status,
            "ms": round(seconds * 1000, 2),
            "bytes": scope.get("body_bytes", 0),
            "client": scope.get("client_name") or (scope.get("client") or ("",))[0],
            "version": metrics.labels["version"],
        }
        self.log.add(line | scope.get("stream", {}))


class Gate:
    """Asks for a key where keys are set, and holds each client to its rate. Health, page and documentation are open."""

    def __init__(self, app: ASGIApp, keys: Keys | None, rate: RateLimit | None) -> None:
        self.app, self.keys, self.rate = app, keys, rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] in ("http", "websocket") and scope["path"] not in OPEN:
            try:
                self._check(scope)
            except Problem as problem:
                await problems.response(scope, problem)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        client = (scope.get("client") or ("",))[0]
        if self.keys is not None:
            headers = Headers(scope=scope)
            scheme, _, token = headers.get("authorization", "").partition(" ")
            key = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "") or _offered(scope)
            if not key:
                raise Problem(401, "a key is needed: Authorization: Bearer KEY, or X-API-Key: KEY")
            name = self.keys.client(key)
            if name is None:
                raise Problem(401, "the key is not known")
            scope["client_name"] = client = name
        if self.rate is not None and (seconds := self.rate.wait(client)):
            raise Problem(429, f"too many requests of {client}; try again in {seconds:.1f} s", retry_after=seconds)


def _offered(scope: Scope) -> str:
    """The key among the subprotocols that a WebSocket offers: the one place where a browser's script can put it."""
    for offered in scope.get("subprotocols", ()):
        if offered.startswith(KEY_PROTOCOL):
            coded = offered.removeprefix(KEY_PROTOCOL)
            with contextlib.suppress(ValueError):
                return base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode()
    return ""


class BodyLimit:
    """Refuses a body by its declared length, and stops reading one that goes on longer."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        too_large = Problem(413, f"a body must have at most {self.max_bytes:,} bytes")
        number = declared.isascii() and declared.isdigit()
        if not number or len(declared) > 18 or int(declared) > self.max_bytes:
            problem = too_large if number else Problem(400, "Content-Length must be a number")
            await problems.response(scope, problem)(scope, receive, send)
            return
        scope["body_bytes"] = 0

        async def counted() -> Message:
            message = await receive()
            scope["body_bytes"] += len(message.get("body", b""))
            if scope["body_bytes"] > self.max_bytes:
                raise too_large
            return message

        await self.app(scope, counted, send)
