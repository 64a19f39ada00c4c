"""POST /v1/segment: images in, a class for each pixel out, as PNG and as run lengths."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from resnet.dense.targets import run_lengths
from resnet.image_class import ImageClass
from serve.api.http_schema import BINARY, GATED, IMAGE_BODY, IMAGES, server_timing
from serve.api.images_v1 import ImageError, answers_to, known_route_parameters, rows
from serve.inference.dense.dense_model import FoundMask, palette_png
from serve.inference.inference_service import Served
from serve.settings import Args
from serve.versions.served_models import Models

PNG = "image/png"


class RunLengths(BaseModel):
    """COCO's uncompressed RLE. counts: lengths of runs of 0, 1, 0, ..., down the columns; size: height, width."""

    counts: list[int]
    size: tuple[int, int]


class Segment(BaseModel):
    """The pixels of one class that is in an image. share: of all pixels."""

    id: int
    wnid: str
    name: str
    share: float
    rle: RunLengths


class SegmentedImage(BaseModel):
    """The classes of an image, the largest first; none where it has an error. mask: PNG in base64, whose values are
    ids of classes."""

    segments: list[Segment]
    mask: str | None = None
    width: int | None = None
    height: int | None = None
    error: ImageError | None = None


class SegmentationAnswer(BaseModel):
    """Answer of /v1/segment: the images in the order in which they were sent."""

    model: str
    version: str
    images: list[SegmentedImage]


def segment_v1(models: Models, args: Args) -> APIRouter:
    """Images in, masks out."""
    routes = APIRouter(prefix="/v1", tags=["images"], dependencies=[Depends(known_route_parameters)])
    told: dict[int | str, dict[str, Any]] = {200: {"content": {PNG: BINARY}}}

    @routes.post(
        "/segment",
        response_model=SegmentationAnswer,
        responses=told | GATED | IMAGES,
        openapi_extra=IMAGE_BODY,
    )
    async def segment(request: Request) -> Response:
        """The class of each pixel of each image. With `Accept: image/png` and one image, the mask alone."""
        outcomes, by = await answers_to(request, models, args, "segmentation")
        timing = server_timing(outcomes)
        first: Any = outcomes[0].answer if isinstance(outcomes[0], Served) else None
        if len(outcomes) == 1 and first is not None and request.headers.get("accept", "").startswith(PNG):
            signed = {"X-Model": by.name, "X-Model-Version": by.version}
            return Response(palette_png(first.mask), media_type=PNG, headers=timing | signed)
        images = rows(outcomes, "segments", lambda answer: segmented(answer, by.classifier.classes))
        return JSONResponse({**by.signature, "images": images}, headers=timing)

    return routes


def segmented(answer: FoundMask, classes: tuple[ImageClass, ...]) -> dict[str, Any]:
    """As SegmentedImage has it."""
    mask = answer.mask
    counts = np.bincount(mask.ravel(), minlength=len(classes))
    found = [
        classes[label].model_dump()
        | {"share": float(counts[label] / mask.size), "rle": {"counts": run_lengths(mask == label), "size": mask.shape}}
        for label in np.argsort(-counts, kind="stable").tolist()
        if counts[label]
    ]
    shown = base64.b64encode(palette_png(mask)).decode()
    return {"segments": found, "mask": shown, "width": mask.shape[1], "height": mask.shape[0]}
