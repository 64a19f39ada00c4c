"""Ray Train's TorchTrainer of a run, from the call to the last checkpoint."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.cluster import connection
from pipelines.cluster.planning.waiting import waits_of
from pipelines.cluster.planning.worker_group import scaling_config, worker_environment
from pipelines.cluster.ray_internals import free_places, lean_trainer
from pipelines.cluster.shared_places import SharedPlace
from pipelines.file_names import below
from pipelines.progress import postings
from pipelines.progress.rank_beacon import Beacon
from pipelines.run import Run, Scaling, TrainingRun
from pipelines.training.guards.hang_watch import HangWatch
from pipelines.training.guards.save_on_stop import saving_first
from pipelines.training.run_data import WorkerData

if TYPE_CHECKING:
    from resnet.training.checkpoint import Progress

Answer = TypeVar("Answer")
LOOK = 1.0  # seconds between two looks at whether a training must end


def run_workers(
    run: Run,
    feed: WorkerData,
    shared: Sequence[SharedPlace],
    callbacks: tuple[Any, ...],
    must_end: Callable[[], str | None] = lambda: None,
) -> tuple[str, Progress]:
    """Run the workers to the end; the last checkpoint's place and progress.

    shared: what each worker must see; must_end: why to end early, or None.
    """
    from pipelines.models.checkpoint_store import CheckpointStore
    from pipelines.training.worker_loop import train_worker

    work_to_the_end(run, feed, train_worker, shared, callbacks, must_end)
    checkpoints = CheckpointStore.of(run)
    found = checkpoints.latest()
    if found is None:
        raise RuntimeError(f"{run.name} ended without a checkpoint in {run.folder}")
    name, checkpoint = found
    return checkpoints.path(name), checkpoint.progress


def work_to_the_end(
    run: TrainingRun,
    feed: Any,
    worker: Callable[[dict[str, Any]], None],
    shared: Sequence[SharedPlace] = (),
    callbacks: tuple[Any, ...] = (),
    must_end: Callable[[], str | None] = lambda: None,
) -> None:
    """Run the workers of a training of any task to the end. worker: called with {"run": JSON, "feed", "report"}."""
    from ray.exceptions import RayActorError
    from ray.train.v2.api.exceptions import TrainingFailedError

    trouble, seeing = None, partial(_seeing, worker, tuple(shared), run.name)
    watch = HangWatch(run.name, run.scaling.hang_timeout)
    with saving_first(lambda: [run.name]), _end_told(run.name), watch:
        for _ in range(1 + run.scaling.retries):
            try:
                beside_the_main_thread(_trainer(run, feed, seeing, callbacks).fit, must_end)
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
        with _end_told(run.name):
            raise RuntimeError(f"{run.name} failed after {run.scaling.retries} restarts: {trouble}") from trouble


@contextlib.contextmanager
def _end_told(run: str) -> Iterator[None]:
    """Within: those who look at the cluster later find why the run has ended before its end."""
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(Exception):  # of a Ray that has ended: the stop is what counts
            postings.note_stop(run)
        raise
    except RuntimeError as error:
        with contextlib.suppress(Exception):
            postings.fail(run, " ".join(str(error).split()))
        raise


def _seeing(
    worker: Callable[[dict[str, Any]], None], shared: Sequence[SharedPlace], run: str, config: dict[str, Any]
) -> None:
    """Work on a machine that sees all that the driver's does. ValueError, posted for the driver: it does not."""
    import ray.train

    if not postings.failure(run):
        try:
            for place in shared:
                place.require_here()
        except ValueError as error:
            postings.fail(run, str(error))
            raise
    here = ray.train.get_context()
    with Beacon(run, here.get_world_rank(), here.get_world_size()):
        worker(config)


def _trainer(run: TrainingRun, feed: Any, worker: Callable[[dict[str, Any]], None], callbacks: tuple[Any, ...]) -> Any:
    """Ray's TorchTrainer of a run: its workers go on from the newest checkpoint."""
    from ray.train import FailureConfig, RunConfig

    scaling = run.scaling
    return lean_trainer(connection.may_grow(), partial(postings.has_failed, run.name))(
        worker,
        train_loop_config={"run": run.model_dump_json(), "feed": feed, "report": bool(callbacks)},
        scaling_config=scaling_config(scaling),
        run_config=RunConfig(
            name=run.name,
            storage_path=below(run.folder, "ray"),  # Ray's own records; our checkpoints lie beside
            failure_config=FailureConfig(max_failures=scaling.retries, controller_failure_limit=_waits(scaling)),
            callbacks=list(callbacks),
            worker_runtime_env={"env_vars": worker_environment(scaling)},
        ),
    )


def _waits(scaling: Scaling) -> int:
    """The number of times that Ray Train may wait for its workers' places, a minute each; -1: `must_end` says when.

    A trial of a sweep trains in another thread, which nobody ends.
    """
    return -1 if threading.current_thread() is threading.main_thread() else waits_of(scaling.wait_minutes)


def beside_the_main_thread(act: Callable[[], Answer], must_end: Callable[[], str | None]) -> Answer:
    """act(), in a thread of its own while the main thread hears signals: in the main thread Ray Train takes Ctrl-C for
    itself, ends the run without a save and the process without a word. RuntimeError: `must_end` says why."""
    if threading.current_thread() is not threading.main_thread():
        return act()
    answers: list[Answer] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            answers.append(act())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="ray train", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(LOOK)
        if (reason := must_end()) is not None:
            raise RuntimeError(reason)
    if errors:
        raise errors[0]
    return answers[0]
