"""Ray Tune runs the trials of a sweep: each is one training by Ray Train, launched from the trial's own process."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from ray import tune
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, Searcher

from pipelines.file_names import below
from pipelines.progress import postings
from pipelines.progress.sweep_table import Board
from pipelines.run import Run
from pipelines.training.fit import fit
from pipelines.training.guards.save_on_stop import saving_first
from pipelines.training.run_data import WorkerData
from pipelines.tuning.growing_slots import GrowingSlots


def run_trials(
    name: str,
    place: str,
    asked: Sequence[Run] | Searcher,
    count: int,
    feed: WorkerData,
    parent: str | None,
    board: Board,
    scheduler: Any = None,
    room: Callable[[], int] | None = None,
) -> None:
    """Train `count` runs, board.slots at a time; how each ended is on the board. One that fails stops no other.

    asked: the runs, or who proposes them; place: folder of the sweep; parent: its MLflow run; room: trials that there
    is room for at present, where nodes may join.
    """
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C ends the job here, and not Tune's loop with success
    proposed = isinstance(asked, Searcher)
    limited = (
        ConcurrencyLimiter(asked, board.slots)
        if isinstance(asked, Searcher)
        else BasicVariantGenerator(max_concurrent=board.slots)
    )
    space = {} if isinstance(asked, Searcher) else {"run": tune.grid_search([r.model_dump_json() for r in asked])}
    trainable: Any = tune.with_resources(tune.with_parameters(trial, feed=feed, parent=parent), {"CPU": 0.01})
    tuner = tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="top1_error",
            mode="min",
            scheduler=scheduler,
            search_alg=limited,
            num_samples=count if proposed else 1,
        ),
        run_config=tune.RunConfig(
            name=f"{name}-{time.strftime('%Y%m%d-%H%M%S')}",
            storage_path=below(place, "tune"),
            verbose=0,
            callbacks=[BoardCallback(board), *([GrowingSlots(board, limited, room)] if room else [])],
        ),
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial's traceback: its reason is on the board
    with saving_first(board.running), board:
        results = tuner.fit()
    for result in results:
        if result.error is not None and result.config is not None:
            run = Run.model_validate_json(result.config["run"]).name
            board.stand(run, "failed", reason(run, result.error))


def trial(config: dict[str, str], feed: WorkerData, parent: str | None) -> None:
    """A Tune trial: one training run by Ray Train, in the trial's own process."""
    from ray.tune.integration.ray_train import TuneReportCallback

    run = Run.model_validate_json(config["run"])
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"  # the report of an epoch waits for the controller's look
    fit(run, feed=feed, show=False, parent=parent, callbacks=(TuneReportCallback(),))


def name_of(trial: Any) -> str:
    """The run's name of a Tune trial."""
    return Run.model_validate_json(trial.config["run"]).name


class BoardCallback(tune.Callback):
    """Tells the board what Tune does with each trial."""

    def __init__(self, board: Board) -> None:
        self.board = board

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune keeps a pickle of its callbacks, which nobody reads."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A process has been asked for."""
        if self.board.rows[name_of(trial)].standing == "waiting":
            self.board.stand(name_of(trial), "starting")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The training has ended, or the scheduler has stopped it."""
        if self.board.rows[name_of(trial)].standing != "stopped":
            self.board.stand(name_of(trial), "finished")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The training failed for good."""
        self.board.stand(name_of(trial), "failed", postings.failure(name_of(trial)) or "")


def reason(run: str, error: BaseException) -> str:
    """The last line of an error that came from another process: the sentence without the traceback."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    last = lines[-1] if lines else repr(error)
    return last.removeprefix("RuntimeError: ").removeprefix("ValueError: ").removeprefix(f"{run} failed: ")
