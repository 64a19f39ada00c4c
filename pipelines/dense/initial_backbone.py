"""The trained network that a detector's or segmenter's backbone begins with, as the checkpoint of step 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pipelines.dense.dense_data import DenseSource, sampled_pixels
from pipelines.dense.dense_run import DenseRun
from pipelines.models.by_name import place, read_checkpoint
from pipelines.models.initial_weights import read_initial
from pipelines.models.weight_files import is_weights

if TYPE_CHECKING:
    from torch import Tensor

    from resnet.dense.dense_checkpoint import DenseCheckpoint

OfTask = TypeVar("OfTask", bound=DenseRun)


def with_its_network(run: OfTask, argv: Sequence[str]) -> OfTask:
    """The run with its backbone's network, unless the command line names one. ValueError: there is no such backbone."""
    named = any(word.partition("=")[0] == "--recipe.network" for word in argv)
    if run.backbone is None or named or is_weights(run.backbone):
        return run
    network = read_checkpoint(place(run.backbone)).recipe.network
    return type(run).model_validate(run.model_dump() | {"recipe": run.recipe.model_dump() | {"network": network}})


def identified_backbone(run: DenseRun) -> DenseRun:
    """The run with the place and SHA-256 of its backbone's weights; without a backbone as it is.

    ValueError: they are of another network or task, or cannot be read.
    """
    if run.backbone is None or run.backbone_sha256 is not None:
        return run
    found = read_initial(run.backbone, run.recipe.network)
    return run.model_copy(update={"backbone": found.place, "backbone_sha256": found.sha256})


def begin_with_backbone(run: DenseRun, source: DenseSource) -> tuple[dict[str, np.ndarray], str]:
    """Mean and deviation that pixels are normalised by, and a sentence on what the run begins with.

    Writes the checkpoint of step 0 with the backbone's weights, unless there is one: workers begin with that.
    """
    from pipelines.dense.dense_saving import DenseStore

    store = DenseStore.of_dense(run)
    if (found := store.latest()) is not None:
        pixels = {name: tensor.flatten(1).mean(1).numpy() for name, tensor in found[1].pixels.items()}
        return pixels, f"{run.name} goes on from step {found[1].progress.step:,}"
    if run.backbone is None:
        return sampled_pixels(source.train), f"{run.name} begins with random weights"
    store.write(initial_dense(run, source))
    return begin_with_backbone(run, source)[0], f"{run.name} begins with the stages of {run.backbone}"


def initial_dense(run: DenseRun, source: DenseSource) -> DenseCheckpoint:
    """The checkpoint of step 0: a run with a backbone before its first step."""
    import torch

    from resnet.dense.dense_checkpoint import DenseCheckpoint, DenseProgress, build_dense

    assert run.backbone is not None
    model, classes = read_initial(run.backbone, run.recipe.network).model, source.manifest.classes
    torch.manual_seed(run.seed)
    network = build_dense(run.recipe, len(classes), model.mean, model.std, model.build())
    pixels = {"mean": by_channel(model.mean), "std": by_channel(model.std)}
    total = run.recipe.total_steps(source.train.examples)
    progress = DenseProgress(step=0, total_steps=total, examples=source.val.examples, classes=classes)
    return DenseCheckpoint(network.state_dict(), {}, pixels, run.model_dump(mode="json"), progress)


def by_channel(values: Tensor) -> Tensor:
    """(3, 1, 1) of (3, H, W): a mean of each pixel becomes one of each channel."""
    return values.flatten(1).mean(1).reshape(3, 1, 1)
