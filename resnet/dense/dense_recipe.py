"""Everything that decides a trained detector or segmenter, as frozen, validated objects. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from resnet.frozen import FrozenSettings
from resnet.networks import architectures
from resnet.recipes.recipe_settings import Optim, Schedule

Task = Literal["detection", "segmentation"]
AT_800 = 32  # pixels of the smallest anchor for images of 800, as torchvision and Lin et al. 2017 have it


class DenseRecipe(FrozenSettings):
    """The settings that detectors and segmenters share."""

    network: Annotated[str, Field(description="the backbone, an imagenet name of resnet.names()")] = (
        "imagenet-resnet50-B"
    )
    size: Annotated[int, Field(ge=32, le=2048, description="shorter side in pixels that images are resized to")]
    norm: Annotated[
        Literal["frozen", "trained"],
        Field(description="the backbone's batch norm. frozen: statistics, scales and shifts stay, as detection has it"),
    ] = "frozen"
    trained_stages: Annotated[
        int, Field(ge=0, le=5, description="last stages of the backbone that are trained; 5: the stem too")
    ] = 3
    flip: Annotated[bool, Field(description="mirror half of the training images")] = True
    turns: Annotated[
        bool, Field(description="turn training images by 0, 90, 180 or 270 degrees: for pictures without an up")
    ] = False
    optim: Optim
    schedule: Schedule
    epochs: Annotated[float | None, Field(gt=0, description="passes over the training set")] = None
    steps: Annotated[int | None, Field(gt=0, description="optimiser steps")] = None
    clip: Annotated[
        float | None, Field(gt=0, description="largest norm of the gradient of a step; what is longer is shortened")
    ] = None
    precision: Annotated[Literal["float32", "bfloat16"], Field(description="of the matrix products in training")] = (
        "float32"
    )

    @field_validator("network")
    @classmethod
    def _network_has_four_stages(cls, value: str) -> str:
        network = architectures.parse_network(value)
        if network.family != "imagenet":
            raise ValueError(f"must be of the imagenet family, whose maps are C2 to C5, got {value}")
        return network.name

    @model_validator(mode="before")
    @classmethod
    def _given_epochs_win(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("epochs") is not None:
            return {**values, "steps": None}
        return values

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self.epochs is None and self.steps is None:
            raise ValueError("one of epochs and steps is needed")
        if self.schedule.kind == "plateau" or self.schedule.gentle_lr is not None:
            raise ValueError(f"schedule.kind must be step or cosine, got {self.schedule.kind}")
        return self

    def steps_per_epoch(self, examples: int) -> int:
        """Whole batches of an epoch. examples: size of the training set."""
        return examples // self.optim.batch_size

    def total_steps(self, examples: int) -> int:
        """Optimiser steps of the training. ValueError: a batch is larger than the training set."""
        if (per_epoch := self.steps_per_epoch(examples)) == 0:
            raise ValueError(
                f"recipe.optim.batch_size must be at most the number of training images, {examples}, "
                f"got {self.optim.batch_size}"
            )
        return self.steps or max(1, round((self.epochs or 0) * per_epoch))


class DetectionRecipe(DenseRecipe):
    """A detector: boxes, classes and scores."""

    task: Literal["detection"] = "detection"
    head: Annotated[
        Literal["faster-rcnn", "retinanet"],
        Field(description="torchvision's: two stages (arXiv 1506.01497) or one (1708.02002), both on a pyramid"),
    ] = "faster-rcnn"
    longest: Annotated[int | None, Field(ge=32, description="longer side at most. None: 5/3 of size")] = None
    width: Annotated[int, Field(ge=8, description="channels of the feature pyramid")] = 256
    regions: Annotated[
        int | None,
        Field(ge=8, description="faster-rcnn: regions of an image that its second stage trains on. None: 512"),
    ] = None
    anchor: Annotated[
        int | None, Field(ge=2, description="side of the smallest anchor in pixels. None: 32 at size 800, by size")
    ] = None
    size: Annotated[int, Field(ge=32, le=2048, description="shorter side in pixels that images are resized to")] = 800
    optim: Optim = Optim(lr=0.02, batch_size=16)
    schedule: Schedule = Schedule(kind="cosine", warmup=0.05)
    epochs: Annotated[float | None, Field(gt=0, description="passes over the training set")] = 12.0

    @property
    def name(self) -> str:
        """Backbone and head."""
        return f"{self.network}@{self.head}"

    @model_validator(mode="after")
    def _regions_are_of_two_stages(self) -> Self:
        if self.regions is not None and self.head != "faster-rcnn":
            raise ValueError(f"regions has an effect with head faster-rcnn only, got {self.regions} with {self.head}")
        return self

    @property
    def longer_side(self) -> int:
        """Pixels of the longer side at most."""
        return self.longest or round(self.size * 5 / 3)

    @property
    def smallest_anchor(self) -> int:
        """Side of the smallest anchor in pixels."""
        return self.anchor or max(2, round(AT_800 * self.size / 800))


class SegmentationRecipe(DenseRecipe):
    """A segmenter: a class for each pixel."""

    task: Literal["segmentation"] = "segmentation"
    head: Annotated[Literal["fcn", "deeplabv3"], Field(description="torchvision's: arXiv 1411.4038, 1706.05587")] = (
        "fcn"
    )
    auxiliary: Annotated[
        float, Field(ge=0, description="weight of the loss of a second head on C4, in training only; 0: no such head")
    ] = 0.5
    scales: Annotated[
        tuple[float, float], Field(description="range of the factor by which training images are resized, around size")
    ] = (0.5, 2.0)
    crop: Annotated[
        int | None, Field(ge=32, description="side of the square that is cut out for training. None: size")
    ] = None
    size: Annotated[int, Field(ge=32, le=2048, description="shorter side in pixels that images are resized to")] = 520
    optim: Optim = Optim(lr=0.01, batch_size=16)
    schedule: Schedule = Schedule(kind="cosine", warmup=0.05)
    epochs: Annotated[float | None, Field(gt=0, description="passes over the training set")] = 30.0

    @model_validator(mode="after")
    def _scales_are_ordered(self) -> Self:
        low, high = self.scales
        if not 0 < low <= high:
            raise ValueError(f"scales must be two positive numbers, the smaller first, got {low} {high}")
        return self

    @property
    def name(self) -> str:
        """Backbone and head."""
        return f"{self.network}@{self.head}"

    @property
    def cut(self) -> int:
        """Side of the square that is cut out for training."""
        return self.crop or self.size


def dense_recipe(fields: dict[str, object]) -> DetectionRecipe | SegmentationRecipe:
    """A recipe from its JSON. ValueError: it is of no task that is known."""
    kinds = {"detection": DetectionRecipe, "segmentation": SegmentationRecipe}
    task = str(fields.get("task"))
    if task not in kinds:
        raise ValueError(f"task must be {' or '.join(kinds)}, got {task}")
    return kinds[task](**fields)
