"""The HTTP interface as a FastAPI application over the models of a replica; no Ray here.

/v1: images in, classes or features out. /v2: the Open Inference Protocol. Beside them health, metrics, a page for
people and the documentation. Every error is problem details (problems.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from fastapi import FastAPI
from prometheus_client.metrics_core import Metric
from starlette.types import Scope

from serve import metrics, problems
from serve.api import middleware
from serve.api.clients import Keys, RateLimit
from serve.api.images_v1 import about, v1
from serve.api.inference_v2 import v2
from serve.api.pages import Gather, people
from serve.settings import Args
from serve.versions.served_models import Models


def create_application(
    models: Models,
    args: Args,
    gather: Gather | None = None,
    echo_id: bool = True,
    replicas: Callable[[], int] = lambda: 1,
) -> FastAPI:
    """The application. gather: the metrics of all replicas, None: of this one; echo_id: answer with X-Request-ID;
    replicas: how many share a client's rate."""

    async def own() -> list[list[Metric]]:
        return [models.families()]

    def counted(scope: Scope) -> metrics.Metrics:
        return scope.get("loaded", models.stable).inference.metrics

    title = f"{args.name}: image classification with {models.stable.classifier.recipe.network}"
    app = FastAPI(title=title, version="1", docs_url=None, redoc_url=None)
    for routes in (v1(models, args), about(models, args), v2(models, args), people(models, args, gather or own)):
        app.include_router(routes)
    problems.install(app)
    keys = Keys(args.api_key_file, logging.getLogger("serve").warning) if args.api_key_file else None
    rate = RateLimit(args.rate_limit, args.rate_burst, replicas) if args.rate_limit else None
    # The last that is added is the first that a request meets.
    app.add_middleware(middleware.BodyLimit, max_bytes=args.max_bytes)
    app.add_middleware(middleware.Gate, keys=keys, rate=rate)
    app.add_middleware(middleware.RequestLog, metrics=counted, access_log=args.access_log, echo_id=echo_id)
    return app
