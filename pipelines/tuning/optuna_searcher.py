"""Ray Tune trains what an Optuna study proposes, and tells the study what came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import Trial, TrialState
from ray.tune.search import Searcher

from pipelines.file_names import below
from pipelines.models.checkpoint_store import CheckpointStore
from pipelines.progress.sweep_table import Board
from pipelines.run import Run
from pipelines.tracking import mlflow_runs
from pipelines.training.run_data import RunData, WorkerData
from pipelines.tuning.search_space import CONTINUES, Search, attempts, run_number, setting
from pipelines.tuning.successive_halving import Halving
from pipelines.tuning.trial_slots import progress_row
from pipelines.tuning.tune_runner import run_trials


class Suggestions(Searcher):
    """Tune's searcher: the trials that the study proposes, and those that a killed call has left unfinished."""

    def __init__(self, study: Study, asked: Search, base: Run, source: RunData, left: int, board: Board) -> None:
        super().__init__(metric="top1_error", mode="min")
        self.study, self.base, self.source, self.left, self.board = study, base, source, left, board
        self.space: dict[str, BaseDistribution] = {
            "lr": FloatDistribution(*asked.lr, log=True),
            "weight_decay": FloatDistribution(*asked.weight_decay, log=True),
        }
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            # Optuna hands a trial to one process only: another one continues its run, from the checkpoint.
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={CONTINUES: run_number(trial)})
        self.trials: dict[str, Trial] = {}  # by the run's name
        self.runs: dict[str, str] = {}  # Tune's id -> the run's name

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune keeps a pickle of its searcher, which nobody reads; the study remembers."""
        return {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Tune's own space is not used."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next run."""
        if self.left == 0:
            return Searcher.FINISHED
        self.left -= 1
        trial = self.study.ask(self.space)
        run = setting(self.base, run_number(trial), trial.params["lr"], trial.params["weight_decay"])
        self.trials[run.name], self.runs[trial_id] = trial, run.name
        self.board.rows[run.name] = progress_row(run, self.source)
        return {"run": run.model_dump_json()}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """An epoch has ended."""
        self.trials[self.runs[trial_id]].report(result["top1_error"], result["step"])

    def stop(self, run: str, result: dict[str, Any]) -> None:
        """The scheduler has stopped a run."""
        trial = self.trials[run]
        if result["step"] not in self.study.get_trials(deepcopy=False)[trial.number].intermediate_values:
            trial.report(result["top1_error"], result["step"])
        self.study.tell(trial, state=TrialState.PRUNED)
        mlflow_runs.close(below(self.base.storage_path, run), "KILLED")
        self.board.stand(run, "stopped", f"after step {result['step']:,}")

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A run has ended, well or not, or was stopped."""
        run = self.runs[trial_id]
        trial = self.trials[run]
        if self.board.rows[run].standing == "stopped":
            return
        if error or not result or "top1_error" not in result:
            trial.set_user_attr("note", self.board.rows[run].note)
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, result["top1_error"])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study remembers."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study remembers."""


def run(
    asked: Search,
    base: Run,
    source: RunData,
    feed: WorkerData,
    study: Study,
    left: int,
    board: Board,
    parent: str | None,
    room: Callable[[], int] | None,
) -> None:
    """Train what is left of a search."""
    searcher = Suggestions(study, asked, base, source, left, board)
    scheduler = None
    if asked.scheduler == "asha":
        scheduler = Halving.of(asked, base.recipe, source.train.examples, _known(study, base), searcher.stop)
    run_trials(board.name, base.storage_path, searcher, left, feed, parent, board, scheduler, room)


def _known(study: Study, base: Run) -> dict[str, Any]:
    """The epochs of all runs of earlier calls, by name."""
    found = {}
    for trial in attempts(study):
        if trial.params:
            run = setting(base, run_number(trial), trial.params["lr"], trial.params["weight_decay"])
            found[run.name] = CheckpointStore.of(run).rows()
    return found
