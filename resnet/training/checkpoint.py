"""Weights, recipe and progress on disk. One reader for resume, evaluation and serving; nothing in it can execute code.

A checkpoint is a directory:
    model.safetensors       weights and batch norm statistics, torchvision's keys for the imagenet family
    optimizer.safetensors   momentum of every parameter
    pixels.safetensors      mean and std that are taken from the input, in [0, 255]
    run.json                the whole run: recipe, data, scaling, seed
    progress.json           steps done, classes, and one row an epoch
    examples.safetensors    of a registered model: some of its input images, and what the network answered then
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from pydantic import SerializerFunctionWrapHandler, ValidationError, model_serializer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from resnet.frozen import Frozen, sentence
from resnet.image_class import ImageClass
from resnet.images.grey_range import GreyRange
from resnet.networks.resnet import ResNet, build
from resnet.networks.weight_keys import misfit
from resnet.recipes.recipe import Recipe
from resnet.training.conditions import Conditions
from resnet.training.gradient_norms import LayerNorms
from resnet.training.step import Normalize

TENSORS = ("model", "optimizer", "pixels")
EXAMPLES = "examples.safetensors"
# What a checkpoint must hold, and all that it may hold: where a folder cannot be listed, these are asked for by name.
REQUIRED = (*(f"{name}.safetensors" for name in TENSORS), "run.json", "progress.json")
FILES = (*REQUIRED, EXAMPLES)
CLASSIFICATION = "classification"


class EpochRow(Frozen):
    """Global figures of one epoch, over all workers. Errors in percent, of the epoch's training steps and of val.

    None: the epoch was not evaluated. class_error: mean of the classes' top-1 errors, however many images each has, 100
    minus the balanced accuracy. seconds, cpu_seconds: of the training, wall time and CPU time of all workers.
    """

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_error: float
    val_loss: float | None = None
    top1_error: float | None = None
    top5_error: float | None = None
    class_error: float | None = None
    seconds: float
    cpu_seconds: float = 0.0
    data_wait_fraction: float = 0.0
    images_per_second: float
    replaced_images: int = 0


class RunProgress(Frozen):
    """Progress of a run of any task. step: optimiser steps done; examples: validation examples that each row counts.

    rows: one an epoch, of the task; sums: loss, top-1 errors and examples of the unfinished epoch's steps, over all
    ranks; seconds, wait, cpu_seconds: its time of training, the part of it that was spent waiting for data, and CPU
    time over all ranks. conditions: of each start that differs from the one before; norms: of gradients and weights at
    a few steps.
    """

    step: int
    total_steps: int
    examples: int
    classes: tuple[ImageClass, ...]
    rows: tuple[Any, ...] = ()
    sums: tuple[float, ...] = (0.0, 0.0, 0.0)
    seconds: float = 0.0
    wait: float = 0.0
    cpu_seconds: float = 0.0
    conditions: tuple[Conditions, ...] = ()
    norms: tuple[LayerNorms, ...] = ()


class Progress(RunProgress):
    """Progress of a classification.

    grey_range: levels (low, high) of the data's grey images of more than 8 bits that became 0 and 255, None: all.
    """

    rows: tuple[EpochRow, ...] = ()
    grey_range: tuple[int, int] | None = None

    @property
    def top1_error(self) -> float | None:
        """Of the newest evaluation."""
        return next((row.top1_error for row in reversed(self.rows) if row.top1_error is not None), None)

    @property
    def train_error(self) -> float | None:
        """Running error of the newest whole epoch; of an unfinished one where there is no other."""
        if not self.rows:
            return None
        steps = [row.step - before for row, before in zip(self.rows, (0, *(r.step for r in self.rows)), strict=False)]
        whole = [row for row, n in zip(self.rows, steps, strict=True) if n == max(steps)]
        return whole[-1].train_error

    @model_serializer(mode="wrap")
    def _without_an_absent_range(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a range a checkpoint is written as before there was one, and read by those who know of none."""
        fields = serialize(self)
        return {name: value for name, value in fields.items() if name != "grey_range" or value is not None}


@dataclass
class Checkpoint:
    """Contents of a checkpoint's directory. run: JSON of pipelines.run.Run, of which resnet knows the recipe only.

    examples: images (N, S, S, 3) uint8 and probabilities (N, K) float32, or None.
    """

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    pixels: dict[str, Tensor]
    run: dict[str, Any]
    progress: Progress
    examples: dict[str, Tensor] | None = None

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run that wrote it."""
        return Recipe(**self.run["recipe"])

    @property
    def grey_range(self) -> GreyRange | None:
        """The range of grey levels that images of more than 8 bits must be decoded with."""
        return None if self.progress.grey_range is None else GreyRange(*self.progress.grey_range)

    def network(self) -> ResNet:
        """The trained network in evaluation mode."""
        model = build(self.recipe.network, len(self.progress.classes))
        if (why := misfit(model, self.model)) is not None:
            raise ValueError(f"a checkpoint of {self.recipe.network} must hold its weights: {why}")
        model.load_state_dict(self.model)
        return model.eval()

    def normalize(self) -> Normalize:
        """The input's normalisation."""
        return Normalize(self.pixels["mean"], self.pixels["std"])


class Saved(Protocol):
    """Content of a checkpoint to be written, of whatever task."""

    run: dict[str, Any]
    examples: dict[str, Tensor] | None

    @property
    def progress(self) -> Frozen:
        """Becomes progress.json."""
        ...


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Saved) -> None:
    """Write a checkpoint into a directory that does not exist yet; complete, or not there at all."""
    target = Path(path)
    part = target.with_name(f"{target.name}.part-{os.getpid()}")
    part.mkdir(parents=True)
    try:
        for name in TENSORS:
            tensors: Mapping[str, Tensor] = getattr(checkpoint, name)
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part / f"{name}.safetensors")
        if checkpoint.examples is not None:
            save_file(checkpoint.examples, part / EXAMPLES)
        (part / "run.json").write_text(json.dumps(checkpoint.run, indent=2))
        (part / "progress.json").write_text(checkpoint.progress.model_dump_json(indent=2))
        mode = (part / "run.json").stat().st_mode & 0o777  # as the umask says; safetensors writes 0600 whatever it is
        for file in part.iterdir():
            file.chmod(mode)
        part.replace(target)
    except BaseException:
        shutil.rmtree(part)
        raise


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint directory. ValueError names what is missing or damaged, or that it is of another task."""
    folder = Path(path)
    files = read_checkpoint_files(folder)
    if (task := task_of(files.run)) != CLASSIFICATION:
        raise ValueError(f"a checkpoint must be of classification here, got one of {task}: {folder}")
    progress = files.progress_as(Progress)
    return Checkpoint(**files.tensors, run=files.run, progress=progress, examples=files.examples)


ProgressOfTask = TypeVar("ProgressOfTask", bound=RunProgress)


class CheckpointFiles(NamedTuple):
    """The files of a checkpoint of any task, read. progress: bytes of JSON."""

    folder: Path
    tensors: dict[str, dict[str, Tensor]]
    examples: dict[str, Tensor] | None
    run: dict[str, Any]
    progress: bytes

    def progress_as(self, kind: type[ProgressOfTask]) -> ProgressOfTask:
        """The progress of a task. ValueError: it is damaged."""
        try:
            return kind.model_validate_json(self.progress)
        except ValidationError as error:
            raise ValueError(f"checkpoint {self.folder} is damaged: progress.json: {sentence(error)}") from None


def read_checkpoint_files(folder: Path) -> CheckpointFiles:
    """The files of a checkpoint. ValueError names what is missing or damaged."""
    for name in REQUIRED:
        _require_readable(folder, name)
    try:
        tensors = {name: load_file(folder / f"{name}.safetensors") for name in TENSORS}
        examples = load_file(folder / EXAMPLES) if (folder / EXAMPLES).is_file() else None
        run = json.loads((folder / "run.json").read_text())
        return CheckpointFiles(folder, tensors, examples, run, (folder / "progress.json").read_bytes())
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"checkpoint {folder} is damaged: {error}") from None


def task_of(run: dict[str, Any]) -> str:
    """The task of a checkpoint's run.json: classification where the recipe names no other."""
    recipe = run.get("recipe")
    return str(recipe.get("task", CLASSIFICATION)) if isinstance(recipe, dict) else CLASSIFICATION


def _require_readable(folder: Path, name: str) -> None:
    """ValueError: a checkpoint lacks a file, or another user's file cannot be read, which safetensors calls absent."""
    try:
        missing = not (folder / name).is_file()
    except PermissionError:
        missing = False
    if missing:
        raise ValueError(f"a checkpoint must hold {name}, got {folder}")
    if not os.access(folder / name, os.R_OK):
        raise ValueError(f"a checkpoint must be readable by who loads it, got {folder / name}: permission denied")


@torch.inference_mode()
def answered(checkpoint: Checkpoint, images: np.ndarray) -> dict[str, Tensor]:
    """Examples for a checkpoint: images (N, S, S, 3) uint8 and the probabilities of the network in float32."""
    pixels = torch.from_numpy(images)
    return {"images": pixels, "probabilities": checkpoint.network()(checkpoint.normalize()(pixels)).softmax(1)}


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Momentum buffers by parameter name."""
    state = optimizer.state
    buffers = {name: state[p].get("momentum_buffer") for name, p in model.named_parameters() if p in state}
    return {name: buffer for name, buffer in buffers.items() if buffer is not None}


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put momentum buffers back, each on its parameter's device."""
    for name, parameter in model.named_parameters():
        if name in tensors:
            buffer = torch.empty_like(parameter, memory_format=torch.preserve_format).copy_(tensors[name])
            optimizer.state[parameter]["momentum_buffer"] = buffer
