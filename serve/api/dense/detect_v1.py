"""POST /v1/detect: images in, boxes with classes and scores out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from resnet.image_class import ImageClass
from serve.api.http_schema import GATED, IMAGE_BODY, IMAGES, server_timing
from serve.api.images_v1 import ImageError, answers_to, known_route_parameters, rows
from serve.inference.dense.dense_model import FoundObjects
from serve.settings import Args
from serve.versions.served_models import Models


class DetectedObject(BaseModel):
    """An object of an image. box: left, top, right and bottom in its pixels."""

    id: int
    wnid: str
    name: str
    score: float
    box: tuple[float, float, float, float]


class DetectedImage(BaseModel):
    """The objects of an image, the surest first; none where it has an error. width, height: of the upright image."""

    detections: list[DetectedObject]
    width: int | None = None
    height: int | None = None
    error: ImageError | None = None


class DetectionAnswer(BaseModel):
    """Answer of /v1/detect: the images in the order in which they were sent."""

    model: str
    version: str
    images: list[DetectedImage]


def detect_v1(models: Models, args: Args) -> APIRouter:
    """Images in, boxes out."""
    routes = APIRouter(prefix="/v1", tags=["images"], dependencies=[Depends(known_route_parameters)])

    @routes.post("/detect", response_model=DetectionAnswer, responses=GATED | IMAGES, openapi_extra=IMAGE_BODY)
    async def detect(request: Request, min_score: Annotated[float, Query(ge=0, le=1)] = 0.5) -> Response:
        """The objects of each image whose score is at least min_score."""
        outcomes, by = await answers_to(request, models, args, "detection")
        images = rows(outcomes, "detections", lambda answer: detected(answer, by.classifier.classes, min_score))
        return JSONResponse({**by.signature, "images": images}, headers=server_timing(outcomes))

    return routes


def detected(answer: FoundObjects, classes: tuple[ImageClass, ...], min_score: float) -> dict[str, Any]:
    """As DetectedImage has it."""
    found = [
        classes[label].model_dump() | {"score": float(score), "box": box.tolist()}
        for box, label, score in zip(*answer.found, strict=True)
        if score >= min_score
    ]
    return {"detections": found, "width": answer.width, "height": answer.height}
