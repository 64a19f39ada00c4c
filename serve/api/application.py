"""The HTTP interface as a FastAPI application over the models of a replica; no Ray here.

/v1: images in, classes, features, boxes or masks out. /v2: the Open Inference Protocol. Beside them health, metrics, a
page for people and the documentation. Every error is problem details (problems.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

from fastapi import FastAPI
from prometheus_client.metrics_core import Metric
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import Scope

from resnet.training.checkpoint import CLASSIFICATION
from serve import metrics, problems
from serve.api import http_schema, inference_v2, middleware
from serve.api.camera.cameras import Cameras, camera_routes
from serve.api.clients import Keys, RateLimit
from serve.api.dense.detect_v1 import detect_v1
from serve.api.dense.segment_v1 import segment_v1
from serve.api.images_v1 import about, v1
from serve.api.inference_v2 import v2
from serve.api.open_inference_protocol import HEADER_LENGTH
from serve.api.pages import Gather, people
from serve.api.retrieval.search_v1 import ImageSearch, search_routes
from serve.settings import Args
from serve.versions.served_models import Models

PACKED = 4096  # bytes from which an answer is packed for a client that takes gzip: the classes, features, the pages
CORS: dict[str, Any] = {
    "allow_methods": ["GET", "HEAD", "POST"],
    "allow_headers": ["*"],
    "expose_headers": ["X-Request-ID", "Retry-After", "Server-Timing", HEADER_LENGTH],
}


def create_application(
    models: Models,
    args: Args,
    gather: Gather | None = None,
    echo_id: bool = True,
    replicas: Callable[[], int] = lambda: 1,
) -> FastAPI:
    """The application. gather: the metrics of all replicas, None: of this one; echo_id: answer with X-Request-ID;
    replicas: how many share a client's rate. Its state.cameras are those of /v1/stream."""

    async def own() -> list[list[Metric]]:
        return [models.families()]

    def counted(scope: Scope) -> metrics.Metrics:
        return scope.get("loaded", models.stable).inference.metrics

    served = models.stable.classifier
    title = f"{args.name}: image {served.task} with {served.recipe.network}"
    app = FastAPI(title=title, version="1", docs_url=None, redoc_url=None, redirect_slashes=False)
    everywhere = gather or own
    rate = RateLimit(args.rate_limit, args.rate_burst, replicas) if args.rate_limit else None
    search = ImageSearch(args)
    app.state.cameras = cameras = Cameras(models, args, rate)
    # A route of another task answers by the name of the right one, and is no part of the description.
    by_task = {CLASSIFICATION: v1, "detection": detect_v1, "segmentation": segment_v1}
    for task, routes in by_task.items():
        app.include_router(routes(models, args), include_in_schema=task == served.task)
    if served.task == CLASSIFICATION:
        app.include_router(search_routes(models, args, search))
        app.include_router(camera_routes(cameras))
    for routes in (
        about(models, args, search.card()),
        v2(models, args, everywhere),
        people(models, args, everywhere),
    ):
        app.include_router(routes)
    problems.install(app)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a line for each malformed form of a stranger
    with_keys = args.api_key_file is not None
    app.openapi = cache(lambda: http_schema.document(app, inference_v2.MODELS, with_keys))
    keys = Keys(args.api_key_file, logging.getLogger("serve").warning) if args.api_key_file is not None else None
    # The last that is added is the first that a request meets.
    app.add_middleware(middleware.BodyLimit, max_bytes=args.max_bytes)
    app.add_middleware(middleware.Gate, keys=keys, rate=rate)
    app.add_middleware(middleware.ForHttp)
    app.add_middleware(GZipMiddleware, minimum_size=PACKED, compresslevel=1)
    if args.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=args.cors_origins, **CORS)
    app.add_middleware(middleware.RequestLog, metrics=counted, access_log=args.access_log, echo_id=echo_id)
    app.add_middleware(middleware.AsRouted)
    return app
