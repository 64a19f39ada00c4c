"""POST /v1/search: an image in, the nearest images of the index out."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from resnet.retrieval.vector_index import Neighbour, VectorIndex
from serve.api.http_schema import GATED, IMAGE_BODY, IMAGES, error, server_timing
from serve.api.images_v1 import ImageError, answers_to, known_route_parameters
from serve.inference.inference_service import Refused
from serve.problems import Problem
from serve.settings import Args
from serve.versions.loaded_model import Loaded
from serve.versions.served_models import Models

PATH = "/v1/search"


class NearImage(BaseModel):
    """An image of the index. distance: 1 - cosine; thumbnail: a data URL of what the network saw."""

    key: str
    distance: float
    thumbnail: str


class SearchedImage(BaseModel):
    """The nearest images, the nearest first; none where it has an error."""

    nearest: list[NearImage]
    error: ImageError | None = None


class SearchAnswer(BaseModel):
    """Answer of /v1/search: the images in the order in which they were sent."""

    model: str
    version: str
    indexed: int
    images: list[SearchedImage]


class ImageSearch:
    """The index of a replica. index: None where none is served."""

    def __init__(self, args: Args) -> None:
        self.index = None if args.index is None else VectorIndex(args.index)

    def of(self, loaded: Loaded) -> VectorIndex:
        """The index, for the model that has answered. Problem 404: there is none; 409: it is another model's."""
        if self.index is None:
            raise Problem(404, f"there is no {PATH}: no index is served (--index FOLDER)")
        try:
            shown = f"{loaded.name} version {loaded.version}"
            self.index.require_model(loaded.classifier.weights_sha256, shown)
        except ValueError as why:
            raise Problem(409, str(why)) from None
        return self.index

    def card(self) -> dict[str, str | int] | None:
        """The index for GET /v1/model."""
        return None if self.index is None else self.index.card.model_dump(include={"model", "version", "images"})


def shown(neighbour: Neighbour) -> dict[str, Any]:
    """As NearImage has it."""
    thumbnail = f"data:image/jpeg;base64,{base64.b64encode(neighbour.thumbnail).decode()}"
    return {"key": neighbour.key, "distance": round(neighbour.distance, 6), "thumbnail": thumbnail}


def search_routes(models: Models, args: Args, search: ImageSearch) -> APIRouter:
    """The route; where no index is served it is not in the documentation, and says why."""
    routes = APIRouter(tags=["images"], dependencies=[Depends(known_route_parameters)])
    document: dict[str, Any] = {"responses": GATED | IMAGES | {409: error("The index is of another model.")}}
    document |= {"response_model": SearchAnswer, "openapi_extra": IMAGE_BODY}
    document |= {"include_in_schema": search.index is not None}

    @routes.post(PATH, **document)
    async def search_images(request: Request, k: Annotated[int, Query(ge=1, le=100)] = 10) -> Response:
        """The nearest images of the index for each image, with thumbnails."""
        search.of(models.stable)
        outcomes, by = await answers_to(request, models, args)
        index = search.of(by)
        look: Callable[[Any], list[Neighbour]] = lambda answer: index.nearest(answer.embedding, k)  # noqa: E731
        images: list[dict[str, Any]] = []
        for outcome in outcomes:
            if isinstance(outcome, Refused):
                problem = outcome.problem
                images.append({"nearest": [], "error": {"status": problem.status, "detail": problem.detail}})
            else:
                found = await asyncio.to_thread(look, outcome.answer)
                images.append({"nearest": [shown(neighbour) for neighbour in found]})
        answer = by.signature | {"indexed": index.card.images, "images": images}
        return JSONResponse(answer, headers=server_timing(outcomes))

    return routes
