"""Runs of detectors and segmenters: recipe, data, scaling and seed, as one validated object."""

from __future__ import annotations

import json
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipelines.file_names import absolute
from pipelines.run import TrainingRun
from resnet.dense.dense_recipe import DetectionRecipe, SegmentationRecipe
from resnet.frozen import FrozenSettings


class DenseData(FrozenSettings):
    """The shards."""

    path: Annotated[str, Field(description="shards with boxes or masks from jobs/write_shards.py: a folder or URI")]
    window: Annotated[int, Field(ge=1, description="row groups that are shuffled together")] = 16

    @field_validator("path")
    @classmethod
    def _folder_is_absolute(cls, value: str) -> str:
        return absolute(value)


class DenseRun(TrainingRun):
    """A training run of a detector or a segmenter."""

    recipe: DetectionRecipe | SegmentationRecipe
    data: DenseData
    resume: Annotated[
        Literal["auto", "never"],
        Field(description="auto: go on from the newest checkpoint of this run; never: refuse if there is one"),
    ] = "auto"
    backbone: Annotated[
        str | None,
        Field(
            description="trained network whose stages the backbone begins with: a checkpoint, a registered model or a "
            "file of weights, of a classification. None: random weights"
        ),
    ] = None
    backbone_sha256: Annotated[
        str | None,
        Field(pattern=r"^[0-9a-f]{64}$", description="of the file with these weights; noted when the run begins"),
    ] = None

    @model_validator(mode="after")
    def _settings_of_classifications_are_left(self) -> Self:
        for field in ("compile", "capture"):
            if (given := getattr(self.scaling, field)) == "on":
                raise ValueError(f"scaling.{field} must be auto or off, got {given}: it is for classifications")
        return self

    @model_validator(mode="after")
    def _batch_norm_has_two_images(self) -> Self:
        workers, batch = self.scaling.most, self.recipe.optim.batch_size
        if isinstance(self.recipe, SegmentationRecipe) and self.recipe.head == "deeplabv3" and batch // workers < 2:
            raise ValueError(
                f"recipe.optim.batch_size must leave each worker two images with head deeplabv3, whose batch norm "
                f"counts images, got {batch} for {workers} workers"
            )
        return self


class DetectorRun(DenseRun):
    """A training run of a detector, as jobs/train_detector.py takes it."""

    recipe: DetectionRecipe = DetectionRecipe()  # pyright: ignore[reportIncompatibleVariableOverride]  frozen


class SegmenterRun(DenseRun):
    """A training run of a segmenter, as jobs/train_segmenter.py takes it."""

    recipe: SegmentationRecipe = SegmentationRecipe()  # pyright: ignore[reportIncompatibleVariableOverride]  frozen


def dense_run(text: str) -> DenseRun:
    """A run from its JSON, of its task's class."""
    kinds: dict[str, type[DenseRun]] = {"detection": DetectorRun, "segmentation": SegmenterRun}
    return kinds[json.loads(text)["recipe"]["task"]].model_validate_json(text)
