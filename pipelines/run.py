"""Run = Recipe + Data + Scaling + seed: the one object that a worker receives, and what a command line overrides."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipelines.data_settings import Data
from pipelines.file_names import absolute, below, require_lasting
from resnet.frozen import FrozenSettings
from resnet.host.home_folder import home_folder
from resnet.recipes.named import for_digits, recipe
from resnet.recipes.recipe import Recipe
from resnet.recipes.recipe_settings import FineTuning

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"  # of a run or a registered model: a folder, a part of a URI, MLflow's
OF_THE_RECIPE = {"precision": "precision", "micro_batch": "bn_batch"}  # older fields of Scaling


def home() -> str:
    """Absolute folder for everything that no option names: $RESNET_HOME, runs/ of the checkout, or ~/resnet."""
    return str(home_folder())


class Scaling(FrozenSettings):
    """The workers and the resources of each. None and auto: from what the machine or cluster has."""

    workers: Annotated[
        int | str | None,
        Field(
            description="processes that train side by side; 1:4 takes as many of 1 to 4 as the cluster has room for, "
            "goes on with fewer when a node is lost and grows back; the batch stays the same"
        ),
    ] = None
    gpu: Annotated[bool | None, Field(description="one GPU a worker")] = None
    gpus_per_worker: Annotated[
        float | None, Field(gt=0, le=1, description="part of a GPU, where several runs share one. None: a whole one")
    ] = None
    cpus_per_worker: Annotated[
        float | None, Field(gt=0, description="CPUs that Ray reserves a worker; the rest is for reading and decoding")
    ] = None
    data_cpus: Annotated[
        float | None, Field(gt=0, description="CPUs that a worker's tasks for reading and decoding may hold")
    ] = None
    threads: Annotated[int | None, Field(ge=1, description="torch threads a worker")] = None
    retries: Annotated[int, Field(ge=0, description="restarts after a lost worker or node, from the last state")] = 20
    wait_minutes: Annotated[
        float, Field(gt=0, description="that a training waits for nodes, or for room on them, before it ends")
    ] = 60
    hang_timeout: Annotated[
        float, Field(ge=0, description="seconds (20 steps at least) after which ranks that hang are ended; 0: never")
    ] = 60
    channels_last: Annotated[bool, Field(description="channels innermost in memory, what fast kernels want")] = True
    compile: Annotated[
        Literal["auto", "on", "off"],
        Field(
            description="compile the residual blocks; takes a minute at the start, and a C++ compiler. auto: on a GPU, "
            "in a run of 10,000 steps or more. Where it fails they stay as they are"
        ),
    ] = "auto"
    capture: Annotated[
        Literal["auto", "on", "off"],
        Field(
            description="replay whole steps as a CUDA graph, where one worker trains on a set that lies on its GPU. "
            "auto: if a trial at the start gives the same numbers; on: end where it does not"
        ),
    ] = "auto"
    deterministic: Annotated[
        bool, Field(description="the same bits in each run on the same GPUs, at some loss of speed; on CPUs always so")
    ] = False
    bucket_mb: Annotated[float, Field(gt=0, description="MiB of gradients that DDP sends at once")] = 25
    static_graph: Annotated[bool, Field(description="tell DDP that all steps are alike")] = False

    @field_validator("compile", mode="before")
    @classmethod
    def _older_choices_are_read(cls, value: object) -> object:
        """Until November 2026 it was a flag."""
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value

    @field_validator("workers")
    @classmethod
    def _workers_are_a_number_or_a_range(cls, value: int | str | None) -> int | str | None:
        found = re.fullmatch(r"(\d+)(?::(\d+))?", str(value))
        least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if value is not None and not 1 <= least <= most:
            raise ValueError(f"must be a number of at least 1, or LEAST:MOST such as 1:4, got {value}")
        return value if value is None else most if least == most else f"{least}:{most}"

    @property
    def least(self) -> int:
        """Workers without which nothing is trained."""
        return int(str(self.workers or 1).partition(":")[0])

    @property
    def most(self) -> int:
        """Workers that train where there is room for all."""
        return int(str(self.workers or 1).rpartition(":")[2])

    @property
    def is_elastic(self) -> bool:
        """True if the number of workers may change."""
        return self.least < self.most


class CheckpointSchedule(FrozenSettings):
    """When the state of the training is saved. The last and the best are kept."""

    every_epochs: Annotated[int, Field(ge=1)] = 1
    every_steps: Annotated[int | None, Field(ge=1, description="inside an epoch too, after so many steps")] = None
    every_minutes: Annotated[float | None, Field(gt=0, description="inside an epoch too, after so many minutes")] = 10
    keep: Annotated[int, Field(ge=1, description="best checkpoints kept, beside the last")] = 1
    wait_minutes: Annotated[
        float,
        Field(ge=0, description="how long the end of a training waits for room on a full disk, or for a lost bucket"),
    ] = 10


class TrainingRun(FrozenSettings):
    """A training run of any task: how it is scaled, saved, repeated and registered. recipe, data: of the task."""

    recipe: Any
    data: Any
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
    resume: Any = "auto"  # of the task's own values
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
    def _storage_is_absolute(cls, value: str | None) -> str | None:
        return value if value is None else absolute(require_lasting(value))

    @model_validator(mode="after")
    def _workers_share_the_batch(self) -> Self:
        workers, batch = self.scaling.most, self.recipe.optim.batch_size
        if batch % workers:
            raise ValueError(
                f"recipe.optim.batch_size must be a multiple of scaling.workers, got {batch} and {workers}"
            )
        return self

    @property
    def name(self) -> str:
        """Its own name, or recipe and seed, e.g. imagenet-resnet34-C.s0."""
        return self.run_name or f"{self.recipe.name}.s{self.seed}"

    @property
    def folder(self) -> str:
        """The folder of its checkpoints and records: an absolute path or a URI, which no other run has."""
        return below(self.storage_path, self.name)

    @property
    def storage_path(self) -> str:
        """The folder of all runs' checkpoints: an absolute path or a URI."""
        return self.storage or str(Path(home()) / "runs")


class Run(TrainingRun):
    """One training run of a classification."""

    recipe: Recipe
    data: Data = Data()
    resume: Annotated[
        str,
        Field(
            description="auto: go on from the newest checkpoint of this run; never: refuse if there is one; a "
            "checkpoint's folder or URI: begin from it"
        ),
    ] = "auto"
    init: Annotated[
        str | None,
        Field(
            description="trained weights to begin with: a checkpoint, a registered model, or a file or folder with "
            "weights of torchvision, timm or Hugging Face; local or remote. None: random weights"
        ),
    ] = None
    init_sha256: Annotated[
        str | None,
        Field(pattern=r"^[0-9a-f]{64}$", description="of the file with these weights; noted when the run begins"),
    ] = None
    promote: Annotated[
        bool,
        Field(description="register the model, and serve it (alias champion) if it is better than the present one"),
    ] = True
    model_name: Annotated[
        str | None,
        Field(
            pattern=NAME,
            description="registered model that it becomes a version of. None: resnet for the data set that was first "
            "trained on, resnet-DATA for any other",
        ),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _older_runs_are_read(cls, values: object) -> object:
        """Until November 2026 precision and batch norm's group were of the scaling, though they decide the network."""
        if not isinstance(values, dict) or not isinstance(scaling := values.get("scaling"), dict):
            return values
        moved = {new: scaling[old] for old, new in OF_THE_RECIPE.items() if old in scaling}
        kept = {name: value for name, value in scaling.items() if name not in OF_THE_RECIPE}
        recipe: Any = values.get("recipe")
        return values | {"scaling": kept, "recipe": recipe | moved if isinstance(recipe, dict) else recipe}

    @model_validator(mode="after")
    def _groups_divide_a_part(self) -> Self:
        workers, batch, group = self.scaling.most, self.recipe.optim.batch_size, self.recipe.bn_batch
        if group is not None and batch // workers % group:
            raise ValueError(
                f"recipe.bn_batch must divide a worker's part of the batch, {batch // workers} images, got {group}; "
                f"batch norm keeps {self.recipe.passes} passes apart, so that many workers at most can share them"
            )
        return self

    @model_validator(mode="after")
    def _steps_can_be_captured(self) -> Self:
        why = f"{self.scaling.least} workers train" if self.scaling.least > 1 else self.recipe.uncaptured
        if self.scaling.capture == "on" and why is not None:
            raise ValueError(f"scaling.capture must be auto or off where {why}, got on")
        return self

    @model_validator(mode="after")
    def _plateaus_are_seen(self) -> Self:
        if self.evaluate_every > 1 and self.recipe.schedule.kind == "plateau":
            raise ValueError(
                f"evaluate_every must be 1 with schedule plateau, which looks at each epoch's error, "
                f"got {self.evaluate_every}"
            )
        return self

    @model_validator(mode="after")
    def _there_are_weights_to_tune(self) -> Self:
        if self.init is None and (self.init_sha256 is not None or self.recipe.finetune != FineTuning()):
            what = "init_sha256" if self.init_sha256 is not None else f"recipe {self.recipe.name}"
            raise ValueError(f"init must be given with {what}: the trained weights to begin with")
        if self.init is not None and self.resume not in ("auto", "never"):
            raise ValueError(f"init has no effect with resume from a checkpoint, got {self.init} and {self.resume}")
        return self

    @property
    def part(self) -> int:
        """Images of one pass through the network, over which batch norm normalises and which no two workers share."""
        return self.recipe.bn_batch or self.recipe.optim.batch_size // self.scaling.most

    @property
    def begins_elsewhere(self) -> bool:
        """True if the run begins from a checkpoint that is named."""
        return self.resume not in ("auto", "never")


def standard(recipe_name: str, *, data_is_given: bool = True, init: str | None = None) -> Run:
    """The run of a recipe before any override. Without data, a cifar10 recipe is adapted to the embedded digits.

    init: the weights that it begins with.

    ValueError: unknown recipe, or an imagenet recipe without data.
    """
    paper = recipe(recipe_name)
    if data_is_given:
        return Run(recipe=paper, init=init)
    if not paper.network.startswith("cifar10-"):
        raise ValueError(f"data.path must be given for {paper.name}: the embedded digits are for cifar10 networks")
    return Run(recipe=for_digits(paper), init=init)
