"""A model's embeddings tested on images in a folder a person (or class): verification of pairs, and recall at k."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from pipelines.file_names import absolute
from pipelines.prediction.prediction_worker import Predictor
from pipelines.storage import Folder
from resnet.frozen import Frozen, FrozenSettings
from resnet.retrieval.pair_verification import Verification, recall_at, verify_pairs
from resnet.retrieval.vector_index import unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 5000  # images whose pairs are all compared: twelve million


class PairTestJob(FrozenSettings):
    """Images, and where the figures go."""

    images: Annotated[str, Field(description="folder or URI with a folder of images a person, none of the training")]
    out: Annotated[Path, Field(description="folder for pairs.json and roc.png")]
    fars: Annotated[tuple[float, ...], Field(description="false acceptance rates at which TAR is told")] = (
        0.1,
        0.01,
        0.001,
    )
    network: Annotated[str | None, Field(description="what a file of weights holds: imagenet-resnet50-B-v1.5")] = None
    preprocess: Annotated[
        str | None, Field(description="RESIZE[,CROP[,bicubic]] for a file of weights that does not say; else its own")
    ] = None
    precision: Annotated[str, Field(description="auto: as the endpoint computes on this hardware")] = "auto"
    seed: Annotated[int, Field(ge=0, description="of the folds and the pairs of two persons in them")] = 0
    batch: Annotated[int, Field(ge=1, description="images of one pass through the network")] = 32


class PairOutcome(Frozen):
    """accuracy, std: of verification over the folds, tar: by FAR, recall: by k; all in percent."""

    out: str
    model: str
    images: int
    persons: int
    same_pairs: int
    other_pairs: int
    accuracy: float
    std: float
    folds: tuple[float, ...]
    tar: dict[str, float]
    recall: dict[str, float]
    seconds: float


def evaluate_embeddings(
    asked: PairTestJob, model: str, trained_on: Collection[str], predictor: Callable[[], Predictor]
) -> PairOutcome:
    """Embed all images, and write pairs.json and roc.png. trained_on: names of the persons that the model has seen.

    ValueError: a person of the images is one of the training, or there are too few.
    """
    began = time.monotonic()
    source = Folder(absolute(asked.images))
    keys = sorted(key for key in source.files() if "/" in key and not key.rsplit("/", 1)[-1].startswith("."))
    persons = [key.split("/")[0] for key in keys]
    if both := sorted(set(persons) & set(trained_on)):
        raise ValueError(f"images must be of persons that the model was not trained on, got {', '.join(both[:5])}")
    if not 2 <= len(keys) <= MOST:
        raise ValueError(f"images must hold 2 to {MOST:,} files in a folder a person, got {len(keys):,}")
    embeddings = _embedded(source, keys, predictor(), asked.batch)
    labels = np.unique(persons, return_inverse=True)[1]
    found, recall = verify_pairs(embeddings, labels, asked.fars, asked.seed), recall_at(embeddings, labels)
    outcome = PairOutcome(
        out=str(asked.out),
        model=model,
        images=len(keys),
        persons=len(set(persons)),
        same_pairs=found.same_pairs,
        other_pairs=found.other_pairs,
        accuracy=found.accuracy,
        std=found.std,
        folds=found.folds,
        tar={f"{far:g}": tar for far, tar in found.tar.items()},
        recall={str(count): value for count, value in recall.items()},
        seconds=time.monotonic() - began,
    )
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "pairs.json").write_text(json.dumps(outcome.model_dump(mode="json"), indent=1) + "\n")
    roc_figure(found).savefig(asked.out / "roc.png", dpi=100)
    return outcome


def _embedded(source: Folder, keys: list[str], predictor: Predictor, batch: int) -> np.ndarray:
    """Embeddings of length 1, (N, C). ValueError names an image that has none: it would change the pairs."""
    rows: list[Any] = []
    for start in range(0, len(keys), batch):
        crops = []
        for key in keys[start : start + batch]:
            try:
                crops.append(predictor.crop(source.read(key)))
            except ValueError as error:
                raise ValueError(f"images must all be such, got {key}: {error}") from None
        rows += [answer.embedding for answer in predictor.run_batch(crops)]
    return unit(np.stack(rows))


def roc_figure(found: Verification) -> Figure:
    """TAR over FAR, the latter by powers of ten."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.maximum(found.far, 1 / (10 * found.other_pairs)), 100 * found.tar_at, drawstyle="steps-post")
    axes.set(xscale="log", xlabel="false acceptance rate", ylabel="true acceptance rate, %", ylim=(0, 101))
    axes.set_title(f"accuracy {found.accuracy:.1f} ± {found.std:.1f} % in {len(found.folds)} folds")
    axes.grid(alpha=0.3)
    return figure
