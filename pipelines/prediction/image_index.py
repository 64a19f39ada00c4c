"""An index of many images for /v1/search: embeddings by the offline prediction, in parts, and the index of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from pipelines.prediction.predict import predict
from pipelines.prediction.prediction_worker import ImagesByModel, PredictionJob, Predictor
from pipelines.storage import Folder
from resnet.frozen import Frozen
from resnet.retrieval.vector_index import CARD, IndexCard, Row, read_card, write_index

PARTS = "parts"  # in the folder of the index


class IndexJob(ImagesByModel):
    """Images, model and folder of an index."""

    out: Annotated[str, Field(description="folder for the index, which the endpoint's --index takes")]
    thumbnail: Annotated[int, Field(ge=16, le=512, description="pixels of a thumbnail's side")] = 96

    @field_validator("out")
    @classmethod
    def _is_local(cls, value: str) -> str:
        if "://" in value:
            raise ValueError(f"must be a folder of this machine, or one that all nodes share, got {value}")
        return value

    def prediction(self) -> PredictionJob:
        """The embeddings that the index is made of."""
        shared = self.model_dump(exclude={"out", "thumbnail"})
        out = str(Path(self.out) / PARTS)
        return PredictionJob(**shared, out=out, embeddings=True, thumbnails=self.thumbnail, top_k=1)


class IndexOutcome(Frozen):
    """images: in the index; failed: those without an embedding, whose reason is in column `error` of the parts."""

    out: str
    model: str
    version: str
    images: int
    failed: int
    seconds: float


def index_images(
    asked: IndexJob, model: IndexCard, open_predictor: Callable[..., Predictor], show: bool = True
) -> IndexOutcome:
    """Write the parts that are missing, and the index where it is. model: the card without width and number of images.

    ValueError: no images, or the folder holds an index of another model.
    """
    began, folder = time.monotonic(), Path(asked.out)
    if (folder / CARD).exists():
        known = read_card(folder, "out")
        if known.weights_sha256 != model.weights_sha256:
            raise ValueError(
                f"out holds an index of {known.model} version {known.version}, got {model.model}: name another"
            )
    predicted = predict(asked.prediction(), (model.model, model.version), open_predictor, show)
    images = predicted.images - predicted.failed
    if predicted.parts_written or not (folder / CARD).exists():
        batches = rows_of(Folder(predicted.out), predicted.parts)
        first = next(batches)
        if show:
            print(f"{images:,} vectors of {len(first[0][2])} numbers are indexed", file=sys.stderr)
        card = model.model_copy(update={"width": len(first[0][2])})
        write_index(folder, card, _again(first, batches))
    seconds = time.monotonic() - began
    return IndexOutcome(
        out=asked.out, model=model.model, version=model.version, images=images, failed=predicted.failed, seconds=seconds
    )


def rows_of(parts: Folder, count: int) -> Iterator[list[Row]]:
    """The images of each part that have an embedding, in the order of the parts."""
    import numpy as np
    from pyarrow import parquet

    from pipelines.prediction.prediction_worker import part_name

    for number in range(count):
        with parts.open(part_name(number)) as stream:
            table = parquet.read_table(stream, columns=["key", "thumbnail", "embedding"])
        table = table.filter(table["embedding"].is_valid())
        keys, thumbnails = table["key"].to_pylist(), table["thumbnail"].to_pylist()
        vectors: Any = np.stack(table["embedding"].to_numpy()) if keys else []
        if keys:
            yield list(zip(keys, thumbnails, vectors, strict=True))


def _again(first: list[Row], rest: Iterator[list[Row]]) -> Iterator[list[Row]]:
    yield first
    yield from rest
