"""FastAPI without its way for the requests that are nearly all: an image, and no parameter.

FastAPI passes a request through ten layers that validate, trace and clean up what an image has not. They are a third of
what the event loop does for it, on the core that computes. Everything else, the documentation too, goes FastAPI's way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serve import problems
from serve.problems import Problem


class Application(FastAPI):
    """FastAPI that calls some routes' functions with the request alone where the query is empty.

    front: what every request passes before, whichever way it goes.
    """

    def __init__(self, front: Callable[[ASGIApp], ASGIApp], **settings: Any) -> None:
        super().__init__(**settings)
        self._routes: dict[str, APIRoute] = {}
        self._front = front(self._either)

    def add_direct(self, routes: list[Any]) -> None:
        """Add POST routes without path parameters."""
        self.router.routes.extend(routes)
        self._routes |= {route.path: route for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        await self._front(scope, receive, send)

    async def _either(self, scope: Scope, receive: Receive, send: Send) -> None:
        plain = scope["type"] == "http" and not scope["query_string"] and not scope.get("root_path")
        if plain and scope["method"] == "POST" and scope["path"] in self._routes:
            await self._call(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes[scope["path"]]
        scope.update(app=self, route=route)
        request = Request(scope, receive)
        answer: Callable[[Request], Awaitable[ASGIApp]] = route.endpoint
        try:
            response = await answer(request)
        except (Problem, HTTPException, ClientDisconnect) as error:
            response = problems.answer_to(request, error)
        except Exception as error:  # ours to mend: it is logged further up
            await problems.answer_to(request, error)(scope, receive, send)
            raise
        await response(scope, receive, send)
