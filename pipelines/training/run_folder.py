"""The folder of a run: what was asked for and what came out lie beside its checkpoints, so that two runs never mix."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pipelines.run import Run
from pipelines.storage import Folder
from pipelines.stream.example_order import WINDOW, default_window
from pipelines.tracking import mlflow_runs
from resnet.frozen import Frozen
from resnet.recipes.recipe import Recipe

if TYPE_CHECKING:
    from pipelines.models.checkpoint_store import CheckpointStore


ASKED = "asked.json"


class TrainingOutcome(Frozen):
    """Outcome of a training run.

    top1_error: percent of `examples` validation images after the last step, in the training's own precision;
    train_error: running error of the last whole epoch; final_train_error, final_top1_error: of the finished network on
    both splits, in float32 and without augmentation; seconds: of this start, with start and end; train_seconds,
    cpu_seconds: of the training's steps over all starts, wall time and CPU time of all workers; chosen_epoch: whose
    network and errors these are, counted from 0, None: the last; init, init_sha256: the trained weights that it began
    with.
    """

    run: str
    recipe: str
    seed: int
    top1_error: float
    top5_error: float
    train_error: float
    examples: int
    epochs: float
    steps: int
    seconds: float
    train_seconds: float | None = None
    cpu_seconds: float | None = None
    images_per_second: float
    data: str
    checkpoint: str
    commit: str = "unknown"
    hardware: str = "unknown"
    mlflow_run: str | None = None
    model_name: str | None = None
    model_version: str | None = None
    champion: str | None = None
    curves: str | None = None
    final_train_error: float | None = None
    final_top1_error: float | None = None
    chosen_epoch: int | None = None
    init: str | None = None
    init_sha256: str | None = None


class RunFolder:
    """The folder of a run. data: fingerprint of what it is trained on; data_before: the same as older runs note it."""

    def __init__(self, run: Run, data: str, data_before: str = "") -> None:
        self.run, self.folder = run, Folder(run.folder)
        self.data_before = data_before
        # Only these decide the trained network; workers, tracking and the like may change from one start to the next.
        self.asked = {"recipe": run.recipe.model_dump(mode="json"), "seed": run.seed, "data_sha256": data}
        self.asked |= {"data": {"window": run.data.window or default_window(run.recipe.optim.batch_size)}}
        if run.begins_elsewhere:
            self.asked["resume"] = run.resume
        if run.init is not None:
            self.asked |= {"init_sha256": run.init_sha256}

    def check(self) -> TrainingOutcome | None:
        """Compare what is asked for with what the folder was made for. The outcome, if the run is finished.

        ValueError: the folder holds another run. Nothing is written: the folder is made for a run by its first step.
        """
        asked = self.read(ASKED)
        if asked is None:
            return None
        if self.run.resume == "never" and (names := self._checkpoints().names()):
            raise ValueError(
                f"resume must be auto where checkpoints are, {self.folder.shown} holds {names[-1]}, got never; "
                "to train anew give another --storage"
            )
        # Fields that a newer version has added have their defaults in an older run.
        asked["recipe"] = Recipe(**asked["recipe"]).model_dump(mode="json")
        if asked["data_sha256"] == self.data_before:
            asked["data_sha256"] = self.asked["data_sha256"]
        asked.setdefault("data", {"window": self._older_window()})
        before, now = dict(mlflow_runs.flat(asked)), dict(mlflow_runs.flat(self.asked))
        self._settle_precision(before, now)
        if self.run.resume == "auto":  # goes on with a run wherever that began
            before.pop("resume", None)
        if before != now:
            field = next(k for k in {**now, **before} if before.get(k) != now.get(k))
            raise ValueError(
                f"{field} must be {before.get(field)} as in the run that {self.folder.shown} holds, "
                f"got {now.get(field)}; for another run give another --name or --storage"
            )
        finished = self.read("outcome.json")
        try:
            return None if finished is None else TrainingOutcome(**finished)
        except ValueError as error:
            raise ValueError(f"{self.folder.shown}/outcome.json: {error}") from None

    def begin(self) -> None:
        """Write down what is asked for, unless an earlier start has. The first step is about to run."""
        if self.read(ASKED) is None:
            self.write(ASKED, self.asked)

    @property
    def is_new(self) -> bool:
        """True if no step of a run was ever made here."""
        return self.read(ASKED) is None

    def start_of(self) -> str:
        """Run.resume as this run began: auto goes on with a run that began from a checkpoint."""
        asked = self.read(ASKED) or {}
        return str(asked.get("resume", self.run.resume))

    def _settle_precision(self, before: dict[str, str], now: dict[str, str]) -> None:
        """auto is what the run began with, which its checkpoints know."""
        name = "recipe.precision"
        if before[name] == "auto" and now[name] != "auto" and (names := self._checkpoints().names()):
            before[name] = str(Run(**(self.read(f"{names[-1]}/run.json") or {})).recipe.precision)
        if "auto" in (before[name], now[name]):
            before[name] = now[name]

    def _older_window(self) -> int:
        """data.window of a run that did not write it down: as its checkpoints know it, else what was usual then."""
        names = self._checkpoints().names()
        noted = (self.read(f"{names[-1]}/run.json") or {}) if names else {}
        return noted.get("data", {}).get("window") or WINDOW

    def _checkpoints(self) -> CheckpointStore:
        from pipelines.models.checkpoint_store import CheckpointStore

        return CheckpointStore.of(self.run)

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the folder, or None."""
        try:
            return json.loads(self.folder.read(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise ValueError(f"storage must be a folder that can be read, got {error}") from None

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON file into the folder; whole, or not at all. ValueError if that cannot be."""
        try:
            with self.folder.writing(name) as file:
                file.write(json.dumps(value, indent=2).encode())
        except OSError as error:
            raise ValueError(f"storage must be a folder or bucket that can be written, got {error}") from None
