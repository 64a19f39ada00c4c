"""Ray Train's TorchTrainer of a run, and its state saved before it is stopped."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pipelines.cluster import connection
from pipelines.cluster.planning.worker_group import scaling_config, worker_environment
from pipelines.cluster.ray_internals import free_places, lean_trainer
from pipelines.progress import postings
from pipelines.run import Run
from pipelines.training.run_data import WorkerData

if TYPE_CHECKING:
    from resnet.training.checkpoint import Progress

SAVING = 15.0  # seconds that a stopped run waits for its workers to save


@contextlib.contextmanager
def saving_first(runs: Iterable[str]) -> Iterator[None]:
    """Within: SIGTERM (`ray job stop`, a scheduler) lets the workers save their state, then ends like Ctrl-C."""

    def save(*_: object) -> None:
        before = {
            run: status.saved
            for run in tuple(runs)
            if (status := postings.last_status(run)) and status.step < status.total
        }
        for run in before:
            postings.ask_to_save(run)
        deadline = time.monotonic() + SAVING
        while before and time.monotonic() < deadline:
            before = {run: old for run, old in before.items() if (s := postings.last_status(run)) and s.saved == old}
            time.sleep(0.1)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.signal(signal.SIGTERM, save)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def run_workers(run: Run, feed: WorkerData, callbacks: tuple[Any, ...]) -> tuple[str, Progress]:
    """Run the workers to the end; the last checkpoint's place and progress."""
    from ray.exceptions import RayActorError
    from ray.train.v2.api.exceptions import TrainingFailedError

    from pipelines.models.checkpoint_store import CheckpointStore

    trouble = None
    with saving_first([run.name]):
        for _ in range(1 + run.scaling.retries):
            try:
                _trainer(run, feed, callbacks).fit()
                trouble = None
            except TrainingFailedError as error:  # it has restarted the workers as often as it may
                trouble = error
            except RayActorError as error:  # Ray Train's controller died, and its workers with it
                trouble = error
                if free_places():
                    continue
            break
    if (reason := postings.failure(run.name)) is not None:
        raise RuntimeError(f"{run.name} failed: {reason}") from trouble
    if trouble is not None:
        raise RuntimeError(f"{run.name} failed after {run.scaling.retries} restarts: {trouble}") from trouble
    checkpoints = CheckpointStore.of(run)
    found = checkpoints.latest()
    if found is None:
        raise RuntimeError(f"{run.name} ended without a checkpoint in {run.folder}")
    name, checkpoint = found
    return checkpoints.path(name), checkpoint.progress


def _trainer(run: Run, feed: WorkerData, callbacks: tuple[Any, ...]) -> Any:
    """Ray's TorchTrainer of a run: its workers go on from the newest checkpoint."""
    from ray.train import FailureConfig, RunConfig

    from pipelines.training.worker_loop import train_worker

    scaling = run.scaling
    return lean_trainer(connection.may_grow())(
        train_worker,
        train_loop_config={"run": run.model_dump_json(), "feed": feed, "report": bool(callbacks)},
        scaling_config=scaling_config(scaling),
        run_config=RunConfig(
            name=run.name,
            storage_path=f"{run.folder}/ray",  # Ray's own records; our checkpoints lie beside
            failure_config=FailureConfig(max_failures=scaling.retries),
            callbacks=list(callbacks),
            worker_runtime_env={"env_vars": worker_environment(scaling)},
        ),
    )
