"""OpenAPI descriptions of bodies, errors and the timing header."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serve import problems
from serve.inference import upload_checks
from serve.inference.inference_service import Served

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {problems.MEDIA_TYPE: {"schema": problems.SCHEMA}}}
    for status, text in {
        400: "Not an image, or a malformed request.",
        401: "No key, or a wrong one.",
        408: "The body came too slowly.",
        413: "Too many bytes, pixels, scans or images.",
        415: "An image of a type that is not decoded.",
        422: "A parameter or a file that cannot be used.",
        429: "Too many requests of one client; see Retry-After.",
        503: "Too many images are in progress; see Retry-After.",
        504: "No answer in time.",
    }.items()
}
BINARY = {"schema": {"type": "string", "format": "binary"}}
FILES = {"type": "object", "properties": {"image": {"type": "array", "items": BINARY["schema"]}}}
IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "description": "The image's bytes, whatever the Content-Type says, or multipart with one file or several.",
        "content": dict.fromkeys(upload_checks.ACCEPTED, BINARY)
        | {"application/octet-stream": BINARY, "multipart/form-data": {"schema": FILES}},
    }
}


def server_timing(served: Sequence[Served]) -> dict[str, str]:
    """The slowest image's phases in milliseconds, as browsers show them."""
    phases = ("decode", "queue", "model")
    times = {phase: max(getattr(s, phase) for s in served) * 1000 for phase in phases}
    return {"Server-Timing": ", ".join(f"{phase};dur={ms:.2f}" for phase, ms in times.items())}
