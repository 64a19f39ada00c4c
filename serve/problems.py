"""Errors as problem details (RFC 9457): every answer that is not 2xx is one JSON object with status, title, detail."""

from __future__ import annotations

import http
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

MEDIA_TYPE = "application/problem+json"
GONE = 499  # nginx's own status: the client closed its connection
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "description": "Of each image, where none of several could be answered.",
            "type": "array",
            "items": {
                "type": "object",
                "required": ["image", "status", "detail"],
                "properties": {
                    "image": {"type": "integer", "description": "Its number, from 1."},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}


class Problem(Exception):
    """A request that is answered by an error. status: HTTP's; detail: one sentence for a person.

    errors: of each image, where none of several could be answered.
    """

    def __init__(
        self, status: int, detail: str, *, retry_after: float | None = None, errors: Sequence[Problem] = ()
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = [{"image": i, "status": e.status, "detail": e.detail} for i, e in enumerate(errors, 1)]
        self.headers = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}
        if status == http.HTTPStatus.UNAUTHORIZED:
            self.headers["WWW-Authenticate"] = "Bearer"


def response(scope: Mapping[str, Any], problem: Problem) -> JSONResponse:
    """The answer to a request (its ASGI scope) that met a problem."""
    content = {
        "type": "about:blank",
        "title": http.HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "request_id": scope.get("request_id", ""),
    }
    if problem.errors:
        content["errors"] = problem.errors
    if scope["path"].startswith("/v2"):
        content["error"] = problem.detail  # the Open Inference Protocol's own member, which its clients read
    return JSONResponse(content, problem.status, problem.headers, MEDIA_TYPE)


def answer_to(request: Request, error: Exception) -> Response:
    """The answer where a route raised an error, whichever."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=GONE)  # nobody reads it; the log shows that the client left
    if isinstance(error, Problem):
        return response(request.scope, error)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        message = first["msg"].replace("Input should", "must")
        problem = Problem(422, f"{where} {message}, got {str(first.get('input'))[:80]!r}")
    elif isinstance(error, HTTPException):
        problem = Problem(error.status_code, _routing_detail(request, error))
        problem.headers |= dict(error.headers or {})
    else:
        problem = Problem(500, "the endpoint failed; its log has the cause under the request id")
    return response(request.scope, problem)


def install(app: FastAPI) -> None:
    """Answer every exception of the application by problem details."""

    async def handler(request: Request, error: Exception) -> Response:
        return answer_to(request, error)

    for kind in (Problem, RequestValidationError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, handler)


# Where clients of other servers ask: the start of a path, and what takes its place here
ELSEWHERE = (
    ("/v1/models", "KServe's and TensorFlow's V1 protocol is not spoken: ask /v2/models/NAME/infer, or /v1/predict"),
    ("/predictions", "TorchServe's path is /v1/predict here, and takes the same bytes or form"),
    ("/predict", "it is /v1/predict here"),
    ("/infer", "it is /v2/models/NAME/infer here"),
    ("/ping", "it is /healthz here"),
    ("/health", "it is /healthz here, and /readyz"),
)


def _routing_detail(request: Request, error: HTTPException) -> str:
    """A sentence instead of Starlette's bare title."""
    path = request.url.path
    if error.status_code == 404:
        known = next((told for start, told in ELSEWHERE if path.startswith(start)), "/docs lists what there is")
        return f"there is no {path}; {known}"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        upload = "; curl -T sends PUT: add -X POST, or use --data-binary" if request.method == "PUT" else ""
        return f"{path} takes {allowed}, not {request.method}{upload}"
    return str(error.detail)
