"""Population-based training (Jaderberg et al. 2017) of one network, by Ray Tune's scheduler over our own checkpoints.

Members train side by side. Every `grace` epochs those of the worst quarter take over a checkpoint of the best quarter,
and its lr and weight decay, changed a little. Each life between two such changes is a run of ours in a folder of its
own, which begins with the checkpoint that it took over. A killed search goes on by Tune's record, from the last epoch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

from pipelines.models.checkpoint_store import PREFIX, CheckpointStore
from pipelines.progress.sweep_table import Board
from pipelines.run import Run
from pipelines.tracking import mlflow_runs
from pipelines.training.fit import fit
from pipelines.training.guards.save_on_stop import saving_first
from pipelines.training.run_data import RunData, WorkerData
from pipelines.tuning.search_space import Search, Tried, setting
from pipelines.tuning.trial_slots import progress_row

LIVES = "lives.json"  # beside a checkpoint: [first step, lr, weight decay] of each life that led to it
POLL = 0.3  # seconds between two looks for a new checkpoint

Life = tuple[int, float, float]


def require_own(folder: Path) -> None:
    """ValueError where another user could have written what Tune left: its state are pickles, and reading runs them."""
    for path in (folder, *folder.rglob("*")):
        state = path.lstat()
        if state.st_uid != os.getuid() or (not path.is_symlink() and state.st_mode & 0o002):
            raise ValueError(
                f"storage must hold a population that only you can write, for Tune reads it as code; got {path}, which "
                "another user owns or may write"
            )


def train_population(
    asked: Search, base: Run, source: RunData, feed: WorkerData, board: Board, parent: str | None
) -> tuple[Tried, ...]:
    """Train a population, or go on with it, and return what became of its members."""
    if "://" in base.storage_path:
        raise ValueError(
            f"storage must be a folder that all nodes can reach with scheduler pbt, got {base.storage_path}"
        )
    per_epoch = base.recipe.steps_per_epoch(source.train.examples)
    for member in range(asked.count):
        row = progress_row(setting(base, member, 1.0, 1.0), source)
        board.rows[row.run] = row
    fixed: dict[str, Any] = {"base": base.model_dump_json(), "feed": feed, "parent": parent}
    trainable: Any = tune.with_resources(tune.with_parameters(live, **fixed), {"CPU": 0.01})
    place = f"{base.storage_path}/tune"
    if tune.Tuner.can_restore(f"{place}/population"):
        require_own(Path(place))
        tuner = tune.Tuner.restore(f"{place}/population", trainable, resume_unfinished=True, restart_errored=True)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=_space(asked),
            tune_config=tune.TuneConfig(
                metric="top1_error",
                mode="min",
                num_samples=asked.count,
                max_concurrent_trials=board.slots,
                scheduler=PopulationBasedTraining(
                    time_attr="step",
                    perturbation_interval=asked.grace_steps(per_epoch, per_epoch),
                    hyperparam_mutations=_space(asked),
                    resample_probability=0.0,
                ),
            ),
            run_config=tune.RunConfig(name="population", storage_path=place, verbose=0),
        )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial's traceback: its reason is in the table
    with saving_first(board.running), board:
        results = tuner.fit()
    for life in Path(base.storage_path, "lives").glob(f"*/*/{LIVES}"):
        if not life.with_name("outcome.json").exists():  # it took over another's weights before its end
            mlflow_runs.close(str(life.parent), "KILLED")
    return tuple(_tried(result, per_epoch) for result in results)


def _space(asked: Search) -> dict[str, Any]:
    return {"lr": tune.loguniform(*asked.lr), "weight_decay": tune.loguniform(*asked.weight_decay)}


def _tried(result: Any, per_epoch: int) -> Tried:
    """A member as people read it: where its weights came from, and with which settings."""
    metrics = result.metrics or {}
    lives: list[Life] = [tuple(life) for life in json.loads(metrics.get("lives", "[]"))]
    return Tried(
        number=metrics.get("member", -1),
        lr=result.config["lr"],
        weight_decay=result.config["weight_decay"],
        state="failed" if result.error is not None else "finished",
        epochs=metrics.get("step", 0) / per_epoch,
        error=metrics.get("top1_error"),
        note="; ".join(f"from epoch {step / per_epoch:g}: lr {lr:.3g}, decay {decay:.3g}" for step, lr, decay in lives),
    )


def live(config: dict[str, Any], base: str, feed: WorkerData, parent: str | None) -> None:
    """A member's life: from the checkpoint that it was given, or from the start, to the end or the next exchange."""
    given = tune.get_checkpoint()
    # By Tune's number of the trial: an exchange replaces the whole of the trial's config.
    member = int(str(tune.get_context().get_trial_id()).rpartition("_")[2])
    if given is None:
        run = member_run(Run.model_validate_json(base), member, config, None)
    else:
        with given.as_directory() as folder:
            run = member_run(Run.model_validate_json(base), member, config, Path(folder))
    with EpochReporter(run, member):
        fit(run, feed=feed, show=False, parent=parent)


def member_run(base: Run, member: int, config: dict[str, Any], given: Path | None) -> Run:
    """The run of a life, its folder made ready. given: a checkpoint with the lives that led to it."""
    run = setting(base, member, config["lr"], config["weight_decay"])
    step = json.loads((given / "progress.json").read_text())["step"] if given else 0
    lives = json.loads((given / LIVES).read_text()) if given else []
    if not lives or lives[-1][1:] != [config["lr"], config["weight_decay"]]:  # a restart is no new life
        lives.append([step, config["lr"], config["weight_decay"]])
    digest = hashlib.sha256(json.dumps([member, step, lives]).encode()).hexdigest()[:8]
    run = run.model_copy(update={"storage": f"{base.storage_path}/lives/{step:08d}-{digest}"})
    folder = Path(run.folder)
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        if given is not None:
            shutil.copytree(given, part / f"{PREFIX}{step:08d}", ignore=shutil.ignore_patterns(LIVES, ".*"))
        (part / LIVES).write_text(json.dumps(lives))
        part.rename(folder)
    return run


class EpochReporter:
    """Within `with`: tells Tune of each epoch whose checkpoint is whole, together with the checkpoint."""

    def __init__(self, run: Run, member: int) -> None:
        self.member = member
        self.lives = Path(run.folder, LIVES).read_text()
        self.checkpoints = CheckpointStore.of(run)
        self.told = json.loads(self.lives)[-1][0]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="teller", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self._end.set()
        self._thread.join()
        if kind is None:
            self._tell()

    def _follow(self) -> None:
        while not self._end.wait(POLL):
            self._tell()

    def _tell(self) -> None:
        """Report the newest checkpoint that ends an epoch, once."""
        names = self.checkpoints.names()
        if not names or int(names[-1].removeprefix(PREFIX)) <= self.told:
            return
        with tempfile.TemporaryDirectory(prefix="life-") as temporary:
            copy = Path(temporary) / "checkpoint"
            try:
                with self.checkpoints.local(names[-1]) as folder:
                    shutil.copytree(folder, copy)
            except FileNotFoundError:  # a newer one has taken its place
                return
            rows = json.loads((copy / "progress.json").read_text())["rows"]
            step = int(names[-1].removeprefix(PREFIX))
            if not rows or rows[-1]["step"] != step or rows[-1]["top1_error"] is None:
                return  # inside an epoch: no error is known there
            (copy / LIVES).write_text(self.lives)
            self.told = step
            metrics = {"step": step, "top1_error": rows[-1]["top1_error"], "lives": self.lives, "member": self.member}
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(str(copy)))
