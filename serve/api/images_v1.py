"""/v1: images in, classes or features out."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from starlette.requests import HTTPConnection

from resnet.evaluation.feature_distance import DistanceCard
from resnet.evaluation.model_figures import ModelFigures
from resnet.image_class import ImageClass
from resnet.images.checks import image_kinds
from resnet.training.checkpoint import CLASSIFICATION
from serve.api.http_schema import GATED, IMAGE_BODY, IMAGES, UNKNOWN, server_timing
from serve.api.request_body import images_of
from serve.inference.classifier import Answer, Classifier, Prediction
from serve.inference.engines.onnx_int8 import Agreement
from serve.inference.inference_service import Outcome, Refused
from serve.problems import Problem
from serve.settings import Args
from serve.versions.loaded_model import Loaded
from serve.versions.served_models import Models

EXAMPLE: JsonDict = {
    "model": "resnet",
    "version": "3",
    "images": [
        {"predictions": [{"id": 207, "wnid": "n02099601", "name": "golden retriever", "probability": 0.93}]},
        {"predictions": [], "error": {"status": 400, "detail": "an image must have bytes, got no bytes"}},
    ],
}


class Predicted(BaseModel):
    """One class of an image."""

    id: int
    wnid: str
    name: str
    probability: float
    found: bool | None = Field(
        default=None, description="The probability reaches the class's threshold; only of models with thresholds."
    )


class ImageError(BaseModel):
    """The reason that one image of several has no answer; status: what it would be answered by alone."""

    status: int
    detail: str


class PredictedImage(BaseModel):
    """The most probable classes of an image, the most probable first; none where it has an error."""

    predictions: list[Predicted]
    distance: float | None = Field(
        default=None, description="From the images of training; only of models with a distance score."
    )
    unknown: bool | None = Field(
        default=None, description="The distance is beyond the model's threshold: another kind of picture."
    )
    error: ImageError | None = None


class Predictions(BaseModel):
    """Answer of /v1/predict: the images in the order in which they were sent."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    model: str
    version: str
    images: list[PredictedImage]


class EmbeddedImage(BaseModel):
    """Pooled features of an image; none where it has an error."""

    embedding: list[float]
    error: ImageError | None = None


class Embeddings(BaseModel):
    """Answer of /v1/embed: the images in the order in which they were sent."""

    model: str
    version: str
    images: list[EmbeddedImage]


class PreprocessingCard(BaseModel):
    """Preprocessing of an image for the network: resized, the middle cut out, (pixels - mean) / std in [0, 255].

    mean: of each channel; a mean of each pixel is averaged.
    """

    shorter_side: int
    crop: int
    interpolation: str
    mean: list[float]
    std: list[float]


class BesideCard(BaseModel):
    """A version beside this one. percent: of the images that it answers, or with shadow computes without answering;
    promote_after: seconds with a good verdict after which it takes over by itself."""

    version: str
    percent: float
    shadow: bool
    promote_after: float | None


class ModelCard(BaseModel):
    """Which model this is. task: classification, detection or segmentation, which says whether /v1/predict, /v1/detect
    or /v1/segment answers; top1_error: percent on the validation split at training time; quality: of the other tasks
    mAP or mIoU there, in percent.

    engine: what computes it: OpenVINO, oneDNN, torch (a GPU too) or, int8, ONNX Runtime;
    deviation: largest difference of a probability from the untouched float32 network's, on generated images;
    agreement: of int8 with float32 on real images, measured when it was exported; null for the other precisions;
    beside: versions that answer a share of the images; refused: why the last version that was wanted does not
    answer; others: models at /v2/models/NAME; index: what /v1/search looks through; figures: of the classes, with
    thresholds, where they were kept; distance: threshold of the score that tells unknown pictures, where it was kept;
    grey_range: levels that become 0 and 255 in grey images of more than 8 bits, null
    for all levels of the file's type.
    """

    name: str
    version: str
    task: str
    network: str
    run: str
    size: int
    preprocessing: PreprocessingCard
    precision: str
    engine: str
    deviation: float
    agreement: Agreement | None
    top1_error: float | None
    quality: float | None
    num_features: int
    grey_range: tuple[int, int] | None
    figures: ModelFigures | None
    distance: DistanceCard | None
    limits: dict[str, float]
    beside: list[BesideCard]
    refused: str | None
    others: list[str]
    index: dict[str, str | int] | None
    classes: list[ImageClass]


def prediction_fields(found: Prediction) -> dict[str, Any]:
    """As Predicted has it; pydantic's own way takes longer than all the rest of an answer."""
    known = found.image_class
    fields = {"id": known.id, "wnid": known.wnid, "name": known.name, "probability": found.probability}
    return fields if found.found is None else fields | {"found": found.found}


def image_fields(answer: Answer, by: Classifier, top_k: int) -> dict[str, Any]:
    """As PredictedImage has it."""
    fields: dict[str, Any] = {"predictions": [prediction_fields(p) for p in by.best(answer.probabilities, top_k)]}
    if by.distance is None or answer.distance is None:
        return fields
    return fields | {"distance": answer.distance, "unknown": answer.distance > by.distance.card.threshold}


def known_route_parameters(request: Request) -> None:
    """Problem 422 for a parameter that the route does not take, or one given twice."""
    known_parameters(request, [parameter.alias for parameter in request.scope["route"].dependant.query_params])


def known_parameters(request: HTTPConnection, known: Sequence[str]) -> None:
    """Problem 422 for a parameter that is not known, or one given twice: without effect it would mislead."""
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; it takes {', '.join(known) or 'none'}"
            raise Problem(422, f"{name[:80]} is no parameter of {request.url.path}{hint}")
        if given.count(name) > 1:
            raise Problem(422, f"{name} must be given once, got it {given.count(name)} times")


def with_hint(problem: Problem, content_type: str, image: bytes) -> Problem:
    """The problem of an image that began well and is damaged, with a word on what damages it: curl's -d drops its line
    ends, and says the same Content-Type as --data-binary, which does not."""
    if problem.status == 400 and content_type.startswith("application/x-www-form-urlencoded"):
        kind = image_kinds.find_kind(image)
        if kind is not None and kind.reader is not None:
            return Problem(400, f"{problem.detail}; if curl sent it: -d changes the bytes, --data-binary keeps them")
    return problem


def rows(outcomes: list[Outcome], empty: str, row: Callable[[Any], dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries of an answer, one an image. empty: the list that is empty where an image has an error."""
    return [
        {empty: [], "error": {"status": o.problem.status, "detail": o.problem.detail}}
        if isinstance(o, Refused)
        else row(o.answer)
        for o in outcomes
    ]


ROUTE_OF = {CLASSIFICATION: "predict", "detection": "detect", "segmentation": "segment"}


async def answers_to(
    request: Request, models: Models, args: Args, task: str = CLASSIFICATION
) -> tuple[list[Outcome], Loaded]:
    """The outcomes of a request's images, in their order, and the version that gave them.

    Problem 404: the served model is of another task.
    """
    if (served := models.stable.classifier.task) != task:
        raise Problem(404, f"{args.name} is a model of {served}, which answers /v1/{ROUTE_OF[served]}")
    with models.stable.inference.admit():
        images = await images_of(request, args)
        try:
            outcomes, request.scope["loaded"] = await models.answer(images)
        except Problem as problem:
            raise with_hint(problem, request.headers.get("content-type", ""), images[0]) from None
    return outcomes, request.scope["loaded"]


def v1(models: Models, args: Args) -> APIRouter:
    """Images in, classes or features out."""
    routes = APIRouter(prefix="/v1", tags=["images"], dependencies=[Depends(known_route_parameters)])

    @routes.post("/predict", response_model=Predictions, responses=GATED | IMAGES, openapi_extra=IMAGE_BODY)
    async def predict(request: Request, top_k: Annotated[int, Query(ge=1, le=1000)] = 5) -> Response:
        """The most probable classes of each image."""
        outcomes, by = await answers_to(request, models, args)
        images = rows(outcomes, "predictions", lambda answer: image_fields(answer, by.classifier, top_k))
        return JSONResponse({**by.signature, "images": images}, headers=server_timing(outcomes))

    @routes.post("/embed", response_model=Embeddings, responses=GATED | IMAGES, openapi_extra=IMAGE_BODY)
    async def embed(request: Request) -> Response:
        """The features of each image after global average pooling."""
        outcomes, by = await answers_to(request, models, args)
        images = rows(outcomes, "embedding", lambda answer: {"embedding": answer.embedding.tolist()})
        return JSONResponse({**by.signature, "images": images}, headers=server_timing(outcomes))

    return routes


def about(models: Models, args: Args, index: dict[str, str | int] | None) -> APIRouter:
    """The answer of GET /v1/model. index: the card of what is searched."""
    routes = APIRouter(prefix="/v1", tags=["images"], dependencies=[Depends(known_route_parameters)])

    @routes.get("/model", responses=GATED | UNKNOWN)
    async def card() -> ModelCard:
        """Which model answers, how exact its arithmetic is, its limits and its classes."""
        limits = ("max_bytes", "max_pixels", "max_images", "timeout", "deadline", "max_streams")
        stable, trial = models.stable, models.trial
        model = stable.classifier
        return ModelCard(
            name=args.name,
            version=stable.version,
            task=model.task,
            network=model.recipe.network,
            run=model.run,
            size=model.size,
            preprocessing=PreprocessingCard(**model.preprocessing),
            precision=model.precision,
            engine=model.engine,
            deviation=model.deviation,
            agreement=model.agreement,
            top1_error=model.top1_error,
            quality=model.quality,
            num_features=model.num_features,
            grey_range=None if model.grey_range is None else (model.grey_range.low, model.grey_range.high),
            figures=model.figures,
            distance=None if model.distance is None else model.distance.card,
            limits={name: getattr(args, name) for name in limits},
            beside=[]
            if trial is None
            else [BesideCard(**each.model_dump(exclude={"checkpoint"})) for each in trial.wanted],
            refused=models.refused,
            others=list(models.others),
            index=index,
            classes=list(model.classes),
        )

    return routes
