"""Recipe: everything that decides the trained network, as one frozen, validated object.

`recipe("imagenet-resnet50-B@paper")` looks one up. The recipes are generated from the table of networks: `paper` from
two pages of the paper (sections 3.4 and 4.2), `90` is the common baseline of ImageNet, `fast` trades a little accuracy
for much time. JSON is the wire format: `recipe.model_dump_json()`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from resnet.frozen import FrozenSettings
from resnet.networks import architectures
from resnet.recipes.loss_settings import Loss
from resnet.recipes.recipe_settings import FineTuning, Images, Optim, Schedule, Selection

Precision = Literal["auto", "float32", "tf32", "bfloat16", "float16"]


class Recipe(FrozenSettings):
    """All settings that decide the trained network, beside the data and the seed."""

    network: Annotated[str, Field(description="a name of resnet.names(), e.g. cifar10-resnet56-A")]
    variant: Annotated[str, Field(description="paper, or another recipe of the same network")] = "paper"
    images: Images
    loss: Loss = Loss()
    optim: Optim = Optim()
    schedule: Schedule
    finetune: FineTuning = FineTuning()
    selection: Selection = Selection()
    zero_init_last_bn: Annotated[
        bool, Field(description="every block starts as its shortcut: its last batch norm scales by 0")
    ] = False
    ema: Annotated[
        float | None,
        Field(gt=0, lt=1, description="decay a step of the moving average of the weights, which is what is evaluated"),
    ] = None
    bn_batch: Annotated[
        int | None,
        Field(
            ge=1,
            description="images of one pass through the network, over which batch norm normalises: the paper's 64 for "
            "CIFAR and 32 for ImageNet, whatever the number of workers. A worker adds the gradients of as many passes "
            "as its part of the batch needs. None: one pass with a worker's part, with 1:4 workers a quarter of the "
            "batch",
        ),
    ] = None
    precision: Annotated[
        Precision,
        Field(
            description="of the matrix products in training. auto: bfloat16 where the hardware multiplies it natively, "
            "and what a run began with where it goes on"
        ),
    ] = "auto"
    bn_examples: Annotated[
        int | None,
        Field(
            gt=0,
            description="training images over which batch norm's mean and variance are averaged after the training, "
            "as the authors did; None: the moving average of the training",
        ),
    ] = None
    epochs: Annotated[
        float | None,
        Field(gt=0, description="passes over the training set; takes the place of steps where both are given"),
    ] = None
    steps: Annotated[int | None, Field(gt=0, description="optimiser steps (the paper's iterations)")] = None

    @field_validator("network")
    @classmethod
    def _network_is_known(cls, value: str) -> str:
        return architectures.parse_network(value).name

    @model_validator(mode="before")
    @classmethod
    def _epochs_win(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("epochs") is not None:
            return {**values, "steps": None}
        return values

    @model_validator(mode="after")
    def _has_a_length(self) -> Self:
        if self.epochs is None and self.steps is None:
            raise ValueError("one of epochs and steps is needed")
        return self

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        if self.zero_init_last_bn and architectures.parse_network(self.network).shortcut == "none":
            raise ValueError(f"zero_init_last_bn must be False for {self.network}: without shortcuts its output is 0")
        if self.optim.batch_size % (self.bn_batch or 1):
            raise ValueError(f"bn_batch must divide optim.batch_size, {self.optim.batch_size}, got {self.bn_batch}")
        if self.bn_examples is not None and self.bn_examples < self.optim.batch_size:
            raise ValueError(
                f"bn_examples must be at least optim.batch_size, {self.optim.batch_size}, got {self.bn_examples}"
            )
        if self.bn_examples is not None and self.selection.by != "last":
            raise ValueError(
                f"bn_examples must be None where selection.by chooses an epoch, got {self.bn_examples} with "
                f"{self.selection.by}: statistics are computed after the last step"
            )
        return self

    @model_validator(mode="after")
    def _frozen_parts_exist(self) -> Self:
        parts = architectures.parse_network(self.network).parts
        if self.finetune.frozen not in ("none", *parts):
            raise ValueError(
                f"finetune.frozen must be one of none, {', '.join(parts)} for {self.network}, "
                f"got {self.finetune.frozen!r}"
            )
        return self

    @property
    def passes(self) -> int:
        """Passes of a batch through the network that batch norm keeps apart: at most so many workers share it."""
        return self.optim.batch_size // (self.bn_batch or 1)

    @property
    def uncaptured(self) -> str | None:
        """Why a step of it asks the host for something, and cannot be captured; None: it needs no host."""
        if self.images.policy != "pad-crop":
            return f"images.policy is {self.images.policy}, which streams its images"
        if self.loss.mixup is not None or self.loss.cutmix is not None:
            return "images are mixed"
        if self.loss.is_angular:
            return f"loss.kind is {self.loss.kind}, whose library asks the host"
        return "float16 has a loss scale" if self.precision == "float16" else None

    @property
    def name(self) -> str:
        """The network's name, with the variant where it is not the paper's."""
        return self.network if self.variant == "paper" else f"{self.network}@{self.variant}"

    def steps_per_epoch(self, examples: int) -> int:
        """Whole batches of an epoch. examples: size of the training set."""
        return examples // self.optim.batch_size

    def total_steps(self, examples: int) -> int:
        """Optimiser steps of the training. examples: size of the training set."""
        per_epoch = self.steps_per_epoch(examples)
        if per_epoch == 0:
            raise ValueError(
                f"optim.batch_size must be at most the number of training images, {examples}, "
                f"got {self.optim.batch_size}"
            )
        if self.epochs is not None:
            return max(1, round(self.epochs * per_epoch))
        assert self.steps is not None  # the validator's promise
        return self.steps

    def bn_steps(self, examples: int) -> int:
        """Global batches, at most one epoch of them, that batch norm's statistics are computed over; 0: none."""
        return min(self.steps_per_epoch(self.bn_examples or 0), self.steps_per_epoch(examples))
