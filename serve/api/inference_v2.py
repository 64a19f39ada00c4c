"""/v2: the Open Inference Protocol."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response

from serve.api import open_inference_protocol
from serve.api.http_schema import ERRORS, server_timing
from serve.api.request_body import body
from serve.settings import Args
from serve.versions.served_models import Models


def v2(models: Models, args: Args) -> APIRouter:
    """The Open Inference Protocol."""
    routes = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

    @routes.get("")
    async def server() -> dict[str, Any]:
        """Name, version and extensions of this server."""
        extensions = ["binary_tensor_data", "classification"]
        return {"name": "deep-residual-ray", "version": "2", "extensions": extensions}

    @routes.get("/health/live")
    async def live() -> dict[str, bool]:
        """True if the process answers."""
        return {"live": True}

    @routes.get("/health/ready")
    async def ready() -> dict[str, bool]:
        """True if the model is loaded."""
        return {"ready": True}

    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        """The model's inputs and outputs."""
        loaded = models.named(name, version) or models.stable
        return open_inference_protocol.metadata(loaded.classifier, loaded.name, loaded.version)

    async def model_ready(name: str, version: str | None = None) -> dict[str, Any]:
        """True if this model is loaded."""
        models.named(name, version)
        return {"name": name, "ready": True}

    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        """Tensors in, tensors out, as JSON or binary."""
        asked = models.named(name, version)
        chosen = asked or models.stable
        with chosen.inference.admit():
            data = await body(request, args.timeout, args.max_bytes)
            length = request.headers.get(open_inference_protocol.HEADER_LENGTH)
            # JSON of a tensor takes tens of milliseconds to read: not on the event loop
            given = await asyncio.to_thread(open_inference_protocol.parse_request, data, length, chosen.classifier.size)
            served, by = await models.answer(given.images, asked)
        request.scope["loaded"] = by
        outputs = {
            "probabilities": np.stack([s.answer.probabilities for s in served]),
            "embedding": np.stack([s.answer.embedding for s in served]),
        }
        content, headers = open_inference_protocol.encode(given, outputs, by.classifier, by.name, by.version)
        return Response(content, headers=headers | server_timing(served))

    schema = {"content": {"application/json": {"schema": open_inference_protocol.RequestHeader.model_json_schema()}}}
    for path in ("/models/{name}", "/models/{name}/versions/{version}"):
        suffix = "of_version" if "versions" in path else "of_model"
        errors = {404: {**ERRORS[400], "description": "No such model."}} | ERRORS
        routes.get(path, operation_id=f"metadata_{suffix}", responses=errors)(metadata)
        routes.get(f"{path}/ready", operation_id=f"ready_{suffix}", responses=errors)(model_ready)
        extra = {"requestBody": {"required": True, **schema}} if "versions" in path else {"requestBody": schema}
        routes.post(f"{path}/infer", operation_id=f"infer_{suffix}", responses=errors, openapi_extra=extra)(infer)
    return routes
