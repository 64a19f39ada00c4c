"""The HTTP interface as a FastAPI application over the models of a replica; no Ray here.

/v1: images in, classes or features out. /v2: the Open Inference Protocol. Beside them health, metrics, a page for
people and the documentation. Every error is problem details (problems.py).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
import zlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client.metrics_core import Metric
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.types import Scope

from resnet.classes import ImageClass
from serve import metrics, middleware, problems, protocol, uploads
from serve.access import Keys, RateLimit
from serve.classifier import Prediction
from serve.inference import Served
from serve.models import Loaded, Models
from serve.problems import Problem
from serve.quantized import Agreement
from serve.settings import Args

Gather = Callable[[], Awaitable[Sequence[Sequence[Metric]]]]

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
        "content": dict.fromkeys(uploads.ACCEPTED, BINARY)
        | {"application/octet-stream": BINARY, "multipart/form-data": {"schema": FILES}},
    }
}


class Predicted(BaseModel):
    """One class of an image."""

    id: int
    wnid: str
    name: str
    probability: float


class PredictedImage(BaseModel):
    """The most probable classes of an image, the most probable first."""

    predictions: list[Predicted]


class Predictions(BaseModel):
    """Answer of /v1/predict: the images in the order in which they were sent."""

    model: str
    version: str
    images: list[PredictedImage]


class EmbeddedImage(BaseModel):
    """Pooled features of an image."""

    embedding: list[float]


class Embeddings(BaseModel):
    """Answer of /v1/embed: the images in the order in which they were sent."""

    model: str
    version: str
    images: list[EmbeddedImage]


class PreprocessingCard(BaseModel):
    """How an image becomes the network's input: resized, the middle cut out, (pixels - mean) / std in [0, 255].

    mean: of each channel; a mean of each pixel is averaged.
    """

    shorter_side: int
    crop: int
    interpolation: str
    mean: list[float]
    std: list[float]


class ModelCard(BaseModel):
    """Which model this is. top1_error: percent on the validation split at training time.

    engine: what computes it: OpenVINO, oneDNN, torch (a GPU too) or, int8, ONNX Runtime;
    deviation: largest difference of a probability from the untouched float32 network's, on generated images;
    agreement: of int8 with float32 on real images, measured when it was exported; null for the other precisions;
    canary: the version that answers some percent of the images; refused: why the last version that was wanted does not
    answer; others: models at /v2/models/NAME; grey_range: levels that become 0 and 255 in grey images of more than 8
    bits, null for all levels of the file's type.
    """

    name: str
    version: str
    network: str
    run: str
    size: int
    preprocessing: PreprocessingCard
    precision: str
    engine: str
    deviation: float
    agreement: Agreement | None
    top1_error: float | None
    num_features: int
    grey_range: tuple[int, int] | None
    limits: dict[str, float]
    canary: dict[str, str | float] | None
    refused: str | None
    others: list[str]
    classes: list[ImageClass]


async def body(request: Request, seconds: float, max_bytes: int) -> bytes:
    """The body's bytes, unpacked where it is gzip or deflate. Problem 408 where it takes too long, 413, 415."""
    try:
        async with asyncio.timeout(seconds):
            data = await request.body()
    except TimeoutError:
        raise Problem(408, f"the body must arrive within {seconds:g} seconds") from None
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return data
    if encoding not in ("gzip", "deflate"):
        raise Problem(415, f"Content-Encoding must be gzip, deflate or identity, got {encoding[:40]!r}")
    return await asyncio.to_thread(unpack, data, max_bytes)


def unpack(data: bytes, max_bytes: int) -> bytes:
    """The content of gzip or zlib data, as far as max_bytes: a small body may unpack to gigabytes."""
    stream = zlib.decompressobj(wbits=47)  # 47: finds out which of the two it is
    try:
        unpacked = stream.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise Problem(400, f"the body is not what its Content-Encoding says: {error}") from None
    if len(unpacked) > max_bytes:
        raise Problem(413, f"a body must have at most {max_bytes} bytes, also unpacked")
    if not stream.eof:
        raise Problem(400, "the body is not what its Content-Encoding says: it ends too early")
    return unpacked


async def images_of(request: Request, args: Args) -> list[bytes]:
    """The images of a request: its body, or the files of a multipart form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        return [await body(request, args.timeout, args.max_bytes)]
    if "content-encoding" in request.headers:
        raise Problem(415, "a multipart body must have no Content-Encoding")
    try:
        async with asyncio.timeout(args.timeout), request.form(max_files=args.max_images, max_fields=16) as form:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            if not files:
                raise Problem(422, "a multipart body must have a file, got none; send it as image=@photo.jpg")
            return [await file.read() for file in files]
    except TimeoutError:
        raise Problem(408, f"the body must arrive within {args.timeout:g} seconds") from None
    except (KeyError, UnicodeError) as error:  # python-multipart on a form without boundary or with odd charsets
        raise Problem(400, f"the multipart form is malformed: {error}") from None


def server_timing(served: Sequence[Served]) -> dict[str, str]:
    """The slowest image's phases in milliseconds, as browsers show them."""
    phases = ("decode", "queue", "model")
    times = {phase: max(getattr(s, phase) for s in served) * 1000 for phase in phases}
    return {"Server-Timing": ", ".join(f"{phase};dur={ms:.2f}" for phase, ms in times.items())}


def shown(found: Prediction) -> dict[str, int | str | float]:
    """As Predicted has it; pydantic's own way takes longer than all the rest of an answer."""
    known = found.image_class
    return {"id": known.id, "wnid": known.wnid, "name": known.name, "probability": found.probability}


def v1(models: Models, args: Args) -> APIRouter:
    """Images in, classes or features out."""
    routes = APIRouter(prefix="/v1", tags=["images"])

    async def answered(request: Request) -> tuple[list[Served], Loaded]:
        with models.stable.inference.admit():
            served, request.scope["loaded"] = await models.answer(await images_of(request, args))
        return served, request.scope["loaded"]

    @routes.post("/predict", response_model=Predictions, responses=ERRORS, openapi_extra=IMAGE_BODY)
    async def predict(request: Request, top_k: Annotated[int, Query(ge=1, le=1000)] = 5) -> Response:
        """The most probable classes of each image."""
        served, by = await answered(request)
        images = [
            {"predictions": [shown(p) for p in by.classifier.best(s.answer.probabilities, top_k)]} for s in served
        ]
        return JSONResponse({**by.signature, "images": images}, headers=server_timing(served))

    @routes.post("/embed", response_model=Embeddings, responses=ERRORS, openapi_extra=IMAGE_BODY)
    async def embed(request: Request) -> Response:
        """The features of each image after global average pooling."""
        served, by = await answered(request)
        images = [{"embedding": s.answer.embedding.tolist()} for s in served]
        return JSONResponse({**by.signature, "images": images}, headers=server_timing(served))

    return routes


def about(models: Models, args: Args) -> APIRouter:
    """What /v1 says of itself."""
    routes = APIRouter(prefix="/v1", tags=["images"])

    @routes.get("/model", responses={401: ERRORS[401]})
    async def card() -> ModelCard:
        """Which model answers, how exact its arithmetic is, its limits and its classes."""
        limits = ("max_bytes", "max_pixels", "max_images", "timeout")
        stable, trial = models.stable, models.trial
        model = stable.classifier
        return ModelCard(
            name=args.name,
            version=stable.version,
            network=model.recipe.network,
            run=model.run,
            size=model.size,
            preprocessing=PreprocessingCard(**model.preprocessing),
            precision=model.precision,
            engine=model.engine,
            deviation=model.deviation,
            agreement=model.agreement,
            top1_error=model.top1_error,
            num_features=model.num_features,
            grey_range=None if model.grey_range is None else (model.grey_range.low, model.grey_range.high),
            limits={name: getattr(args, name) for name in limits},
            canary=None if trial is None else {"version": trial.canary.version, "percent": trial.percent},
            refused=models.refused,
            others=list(models.others),
            classes=list(model.classes),
        )

    return routes


def v2(models: Models, args: Args) -> APIRouter:
    """The Open Inference Protocol."""
    routes = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

    @routes.get("")
    async def server() -> dict[str, Any]:
        """What this server is."""
        extensions = ["binary_tensor_data", "classification"]
        return {"name": "deep-residual-ray", "version": "2", "extensions": extensions}

    @routes.get("/health/live")
    async def live() -> dict[str, bool]:
        """Whether the process answers."""
        return {"live": True}

    @routes.get("/health/ready")
    async def ready() -> dict[str, bool]:
        """Whether the model is loaded."""
        return {"ready": True}

    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        """The model's inputs and outputs."""
        loaded = models.named(name, version) or models.stable
        return protocol.metadata(loaded.classifier, loaded.name, loaded.version)

    async def model_ready(name: str, version: str | None = None) -> dict[str, Any]:
        """Whether this model is loaded."""
        models.named(name, version)
        return {"name": name, "ready": True}

    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        """Tensors in, tensors out, as JSON or binary."""
        asked = models.named(name, version)
        chosen = asked or models.stable
        with chosen.inference.admit():
            data = await body(request, args.timeout, args.max_bytes)
            length = request.headers.get(protocol.HEADER_LENGTH)
            # JSON of a tensor takes tens of milliseconds to read: not on the event loop
            given = await asyncio.to_thread(protocol.parse, data, length, chosen.classifier.size)
            served, by = await models.answer(given.images, asked)
        request.scope["loaded"] = by
        outputs = {
            "probabilities": np.stack([s.answer.probabilities for s in served]),
            "embedding": np.stack([s.answer.embedding for s in served]),
        }
        content, headers = protocol.encode(given, outputs, by.classifier, by.name, by.version)
        return Response(content, headers=headers | server_timing(served))

    schema = {"content": {"application/json": {"schema": protocol.Header.model_json_schema()}}}
    for path in ("/models/{name}", "/models/{name}/versions/{version}"):
        suffix = "of_version" if "versions" in path else "of_model"
        errors = {404: {**ERRORS[400], "description": "No such model."}} | ERRORS
        routes.get(path, operation_id=f"metadata_{suffix}", responses=errors)(metadata)
        routes.get(f"{path}/ready", operation_id=f"ready_{suffix}", responses=errors)(model_ready)
        extra = {"requestBody": {"required": True, **schema}} if "versions" in path else {"requestBody": schema}
        routes.post(f"{path}/infer", operation_id=f"infer_{suffix}", responses=errors, openapi_extra=extra)(infer)
    return routes


def people(models: Models, args: Args, gather: Gather) -> APIRouter:
    """Health, metrics, the page and the documentation."""
    routes = APIRouter()
    folder = Path(__file__).parent
    pages = {name: (folder / f"{name}.html").read_text() for name in ("page", "docs")}

    def page(name: str) -> HTMLResponse:
        return HTMLResponse(pages[name], headers={"Content-Security-Policy": content_policy(pages[name])})

    @routes.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return page("page")

    @routes.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return page("docs")

    @routes.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @routes.get("/readyz", tags=["health"])
    async def readyz() -> dict[str, str]:
        """Whether the model is loaded."""
        return {"status": "ready", "model": args.name, "version": models.stable.version}

    @routes.get("/metrics", tags=["health"], response_class=Response)
    async def scrape() -> Response:
        """Counters and histograms of all replicas, in Prometheus form."""
        return Response(metrics.exposition(await gather()), media_type=metrics.MEDIA_TYPE)

    return routes


def content_policy(html: str) -> str:
    """A page's own script and nothing from elsewhere: the Content-Security-Policy of a self-contained page."""
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def build(
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
