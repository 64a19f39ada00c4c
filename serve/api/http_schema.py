"""OpenAPI descriptions of bodies, errors and keys, and the timing header."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serve import problems
from serve.inference import upload_checks
from serve.inference.inference_service import Outcome, Served

Responses = dict[int | str, dict[str, Any]]
REFERENCE = "#/components/schemas/{model}"


def error(text: str) -> dict[str, Any]:
    """An answer by problem details, for a person's reason."""
    return {
        "description": text,
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(model="Problem")}}},
    }


# Of every route but health and the pages
GATED: Responses = {
    401: error("No key, or a wrong one."),
    429: error("Too many requests of one client; see Retry-After."),
}
BODY: Responses = {
    400: error("Not an image, or a malformed request."),
    408: error("The body came too slowly."),
    413: error("Too many bytes, pixels, scans or images."),
    415: error("An image or a Content-Encoding of a kind that is not decoded."),
    503: error("Too many images are in progress; see Retry-After."),
    504: error("No answer in time."),
}
UNKNOWN: Responses = {422: error("A parameter that the route does not take.")}
IMAGES: Responses = BODY | {422: error("A parameter, a form or JSON that cannot be used.")}
NO_MODEL: Responses = {404: error("No such model or version.")}

BINARY = {"schema": {"type": "string", "format": "binary"}}
FILES = {
    "type": "object",
    "required": ["image"],
    "properties": {"image": {"type": "array", "items": BINARY["schema"], "minItems": 1}},
}
BASE64 = {"type": "string", "contentMediaType": "image/*", "contentEncoding": "base64"}
IN_JSON = {
    "type": "object",
    "description": "Base64, or data URLs: one image, or several.",
    "oneOf": [
        {"required": ["image"], "properties": {"image": BASE64}, "additionalProperties": False},
        {
            "required": ["images"],
            "properties": {"images": {"type": "array", "items": BASE64, "minItems": 1}},
            "additionalProperties": False,
        },
    ],
}
IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "description": "The image's bytes, whatever the Content-Type says, a form with one file or several, or base64.",
        "content": {
            "application/octet-stream": BINARY,
            **dict.fromkeys(upload_checks.ACCEPTED, BINARY),
            "multipart/form-data": {"schema": FILES},
            "application/json": {"schema": IN_JSON},
        },
    }
}
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "X-API-Key: KEY"},
}


def document(app: FastAPI, more: Sequence[type[BaseModel]], keys: bool) -> dict[str, Any]:
    """The OpenAPI document. more: models that bodies refer to; keys: whether the endpoint asks for them.

    Where it asks for none, they are told as a choice: a generated client works with another endpoint too.
    """
    api = get_openapi(
        title=app.title, version=app.version, description=app.description, tags=app.openapi_tags, routes=app.routes
    )
    schemas = api.setdefault("components", {}).setdefault("schemas", {})
    _, definitions = models_json_schema([(model, "validation") for model in more], ref_template=REFERENCE)
    schemas |= definitions.get("$defs", {}) | {"Problem": problems.SCHEMA}
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own; ours are problem details
        schemas.pop(name, None)
    api["components"]["securitySchemes"] = SCHEMES
    needed = [{name: []} for name in SCHEMES]
    for operations in api["paths"].values():
        for operation in operations.values():
            answers = operation["responses"]
            if "HTTPValidationError" in str(answers.get("422")):
                del answers["422"]
            operation["security"] = [] if "401" not in answers else needed if keys else [{}, *needed]
    return api


def server_timing(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """The slowest image's phases in milliseconds, as browsers show them."""
    served = [outcome for outcome in outcomes if isinstance(outcome, Served)]
    phases = ("decode", "queue", "model")
    times = {phase: max(getattr(s, phase) for s in served) * 1000 for phase in phases}
    return {"Server-Timing": ", ".join(f"{phase};dur={ms:.2f}" for phase, ms in times.items())}
