"""Runs of detectors and segmenters: recipe, data, scaling and seed, as one validated object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipelines.file_names import absolute, below, require_lasting
from pipelines.run import NAME, CheckpointSchedule, Scaling, home
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


class DenseRun(FrozenSettings):
    """A training run of a detector or a segmenter."""

    recipe: DetectionRecipe | SegmentationRecipe
    data: DenseData
    scaling: Scaling = Scaling()
    checkpoints: CheckpointSchedule = CheckpointSchedule()
    seed: Annotated[int, Field(ge=0, description="of initial weights, order of examples and augmentation")] = 0
    storage: Annotated[
        str | None,
        Field(description="folder or URI that all nodes can reach, for checkpoints. None: runs/ in $RESNET_HOME"),
    ] = None
    evaluate_every: Annotated[
        int, Field(ge=1, description="epochs between two evaluations; the end of a training is always evaluated")
    ] = 1
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
    promote: Annotated[
        bool,
        Field(description="register the model, and give it the alias champion if it is better than the present one"),
    ] = True
    run_name: Annotated[
        str | None,
        Field(pattern=NAME, description="its own name and folder, also given as --name. None: recipe and seed"),
    ] = None
    model_name: Annotated[
        str | None,
        Field(pattern=NAME, description="registered model that it becomes a version of. None: resnet-DATA"),
    ] = None

    @field_validator("storage")
    @classmethod
    def _storage_lasts(cls, value: str | None) -> str | None:
        return value if value is None else absolute(require_lasting(value))

    @model_validator(mode="after")
    def _ranks_share_the_batch(self) -> Self:
        workers, batch = self.scaling.most, self.recipe.optim.batch_size
        if batch % workers:
            raise ValueError(
                f"recipe.optim.batch_size must be a multiple of scaling.workers, got {batch} and {workers}"
            )
        if isinstance(self.recipe, SegmentationRecipe) and self.recipe.head == "deeplabv3" and batch // workers < 2:
            raise ValueError(
                f"recipe.optim.batch_size must leave each worker two images with head deeplabv3, whose batch norm "
                f"counts images, got {batch} for {workers} workers"
            )
        return self

    @property
    def name(self) -> str:
        """Its own name, or recipe and seed, e.g. imagenet-resnet50-B@faster-rcnn.s0."""
        return self.run_name or f"{self.recipe.name}.s{self.seed}"

    @property
    def folder(self) -> str:
        """The folder of its checkpoints and records."""
        return below(self.storage_path, self.name)

    @property
    def storage_path(self) -> str:
        """The folder of all runs' checkpoints."""
        return self.storage or str(Path(home()) / "runs")


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
