"""/v2: the Open Inference Protocol."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from serve.api import model_metadata_v2, open_inference_protocol
from serve.api.http_schema import BINARY, BODY, GATED, NO_MODEL, REFERENCE, server_timing
from serve.api.model_metadata_v2 import (
    IndexEntry,
    ModelConfiguration,
    ModelMetadata,
    ModelStatistics,
)
from serve.api.open_inference_protocol import InferenceAnswer, RequestHeader
from serve.api.pages import Gather
from serve.api.request_body import body
from serve.inference.inference_service import Outcome, Refused, Served
from serve.problems import Problem
from serve.settings import Args
from serve.versions.loaded_model import Loaded
from serve.versions.served_models import Models

EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics")
BOTH_WAYS = {
    "requestBody": {
        "required": True,
        "description": f"JSON, or JSON and then tensors, with its length in {open_inference_protocol.HEADER_LENGTH}.",
        "content": {
            "application/json": {"schema": {"$ref": REFERENCE.format(model="RequestHeader")}},
            "application/octet-stream": BINARY,
        },
    }
}
INDEX_BODY = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}


class ServerMetadata(BaseModel):
    """Name, version and extensions of this server."""

    name: str = "deep-residual-ray"
    version: str = "2"
    extensions: tuple[str, ...] = EXTENSIONS


class Live(BaseModel):
    """True if the process answers."""

    live: bool = True


class Ready(BaseModel):
    """True if the model is loaded. name: null for the server."""

    ready: bool = True
    name: str | None = None


def v2(models: Models, args: Args, gather: Gather) -> APIRouter:
    """The Open Inference Protocol. gather: the metrics of all replicas."""
    routes = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

    @routes.get("", responses=GATED)
    async def server() -> ServerMetadata:
        """Name, version and extensions of this server."""
        return ServerMetadata()

    @routes.get("/health/live")
    async def live() -> Live:
        """True if the process answers."""
        return Live()

    @routes.get("/health/ready")
    async def ready() -> Ready:
        """True if the model is loaded."""
        return Ready()

    @routes.post("/repository/index", responses=GATED, openapi_extra=INDEX_BODY)
    async def index() -> list[IndexEntry]:
        """The versions that are loaded, all of which are ready: `ready` of the body changes nothing."""
        return [IndexEntry(name=loaded.name, version=loaded.version) for loaded in models.answering()]

    @routes.post("/repository/models/{name}/{action}", include_in_schema=False)
    async def change(name: str, action: str) -> None:
        loads = (
            f"{name[:80]} cannot be loaded or unloaded by a request" if action in ("load", "unload") else action[:80]
        )
        raise Problem(400, f"{loads}: the endpoint serves what the registry and --models say")

    @routes.get("/models/stats", responses=GATED)
    async def all_statistics() -> ModelStatistics:
        """Counts of all versions that are loaded."""
        return await counted(models.answering())

    async def counted(loaded: list[Loaded]) -> ModelStatistics:
        replicas = await gather()
        each = [model_metadata_v2.version_statistics(replicas, one.name, one.version) for one in loaded]
        return ModelStatistics(model_stats=each)

    def chosen(name: str, version: str | None) -> Loaded:
        return models.named(name, version) or models.stable

    async def metadata(name: str, version: str | None = None) -> ModelMetadata:
        """The model's inputs and outputs."""
        loaded = chosen(name, version)
        return model_metadata_v2.metadata(loaded.classifier, loaded.name, loaded.version)

    async def configuration(name: str, version: str | None = None) -> ModelConfiguration:
        """The model's configuration, as Triton's clients read it."""
        loaded = chosen(name, version)
        return model_metadata_v2.configuration(loaded.classifier, loaded.name, loaded.version)

    async def statistics(name: str, version: str | None = None) -> ModelStatistics:
        """Counts of the model, over all replicas."""
        return await counted([chosen(name, version)])

    async def model_ready(name: str, version: str | None = None) -> Ready:
        """True if this model is loaded."""
        return Ready(name=chosen(name, version).name)

    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        """Tensors in, tensors out, as JSON or binary."""
        asked = models.named(name, version)
        model = asked or models.stable
        with model.inference.admit():
            data = await body(request, args.timeout, args.max_bytes)
            length = request.headers.get(open_inference_protocol.HEADER_LENGTH)
            # JSON of a tensor takes tens of milliseconds to read: not on the event loop
            size, names = model.classifier.size, [name for name, _, _ in model.classifier.tensors]
            given = await asyncio.to_thread(open_inference_protocol.parse_request, data, length, size, names)
            outcomes, by = await models.answer(given.images, asked)
        request.scope["loaded"] = by
        served = all_served(outcomes)
        try:
            outputs = by.classifier.stacked([one.answer for one in served])
        except ValueError as error:
            raise Problem(422, str(error)) from None
        content, headers = open_inference_protocol.encode(given, outputs, by.classifier, by.name, by.version)
        return Response(content, headers=headers | server_timing(served))

    answers: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": BINARY}}}
    for path, suffix in (("/models/{name}", "of_model"), ("/models/{name}/versions/{version}", "of_version")):
        told = GATED | NO_MODEL
        routes.get(path, operation_id=f"metadata_{suffix}", responses=told)(metadata)
        routes.get(f"{path}/ready", operation_id=f"ready_{suffix}", responses=told)(model_ready)
        routes.get(f"{path}/config", operation_id=f"configuration_{suffix}", responses=told)(configuration)
        routes.get(f"{path}/stats", operation_id=f"statistics_{suffix}", responses=told)(statistics)
        routes.post(
            f"{path}/infer",
            operation_id=f"infer_{suffix}",
            response_model=InferenceAnswer,
            responses=answers | told | BODY,
            openapi_extra=BOTH_WAYS,
        )(infer)
    return routes


MODELS: tuple[type[BaseModel], ...] = (RequestHeader,)  # that bodies refer to


def all_served(outcomes: list[Outcome]) -> list[Served]:
    """The answers: a tensor has no place for an error. Problem of the first image that has none."""
    for i, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, Refused):
            problem = outcome.problem
            raise Problem(problem.status, f"image {i} of {len(outcomes)}: {problem.detail}")
    return [outcome for outcome in outcomes if isinstance(outcome, Served)]
