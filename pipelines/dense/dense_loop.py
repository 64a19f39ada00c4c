"""The training loop of one rank of a detector or a segmenter, inside a Ray Train worker."""

from __future__ import annotations

import itertools
import json
import math
from functools import partial
from typing import Any

import torch

from pipelines.cluster import free_cpus
from pipelines.dense.dense_data import DenseFeed
from pipelines.dense.dense_learner import DenseLearner
from pipelines.dense.dense_rank import DenseRank
from pipelines.dense.dense_run import DenseRun, dense_run
from pipelines.dense.dense_saving import DenseSaver, DenseStore
from pipelines.progress import postings
from pipelines.progress.run_clock import RunClock
from pipelines.progress.time_left import TimeLeft
from pipelines.storage import Folder
from pipelines.training.guards.lasting_causes import told_to_the_driver
from pipelines.training.rank_data import placed
from pipelines.training.training_state import Epoch, TrainingState
from resnet.dense.dense_checkpoint import DenseRow
from resnet.training.conditions import conditions
from resnet.training.lr_schedule import lr_at

FINAL_FIGURES = "final_figures.json"  # in a run's folder: the finished network's figures, by class too
CLOSING = 8.0  # seconds, about, from the last word of the workers to the outcome
NAMES = {"detection": "mAP", "segmentation": "mIoU"}


def train_dense_worker(config: dict[str, Any]) -> None:
    """One rank. config: {"run": JSON of DenseRun, "feed": DenseFeed, ...}; errors as in train_worker."""
    run = dense_run(config["run"])
    if postings.failure(run.name):
        return
    with told_to_the_driver(run.name):
        train_dense(_task(run, config["feed"]))


def _task(run: DenseRun, feed: DenseFeed) -> DenseRank:
    """This worker's view of the run, as Ray Train has placed it."""
    return DenseRank(run, feed, *placed(run.scaling), free_cpus.here(run.scaling.data_cpus or 1.0))


def train_dense(task: DenseRank) -> None:
    """The training loop, from the newest checkpoint to the end. Needs a process group, and Ray for its statuses."""
    # Where it goes on: rank 0 reads the newest checkpoint, and the learner hands it to the others.
    run, store = task.run, DenseStore.of_dense(task.run)
    found = store.latest() if task.rank == 0 else None
    learner = DenseLearner(task, found[1] if found else None)
    progress: Any = learner.progress  # both tasks' progress has what the state takes up
    state = TrainingState(task.device, progress, task.rank)

    # Who is told: the driver by statuses, the storage by checkpoints.
    line = postings.StatusPoster(run.name) if task.rank == 0 else None
    mine: tuple[Any, Any] = (task, learner)  # they have what Saver takes of a classification's
    saver = DenseSaver(mine[0], mine[1], store, state, line)
    spe, clock = task.order.steps_per_epoch, _clock(task, saver, state)
    if state.step < task.total:
        _note_conditions(task, state)

    # Epoch by epoch; the first may begin in its middle.
    while state.step < task.total:
        epoch, first = divmod(state.step, spe)
        end = min(task.total, (epoch + 1) * spe)
        state.start()
        batches = task.training(epoch, first)
        while state.step < end:
            with state.waiting():
                batch = next(batches)
            state.lr = lr_at(state.step, task.total, run.recipe.optim, run.recipe.schedule)
            state.add(learner.step(batch, epoch, state.step, state.lr))
            state.step += 1
            clock.tick(state.step)
            if state.step < end and saver.is_due(state.step):
                saver.agree(state)

        # The epoch has ended: the evaluation where it is due, the row, the checkpoint.
        saver.require_finite(state)
        state.mark()
        ended, last = state.close(), state.step == task.total
        figures: dict[str, Any] = {}
        if last or (epoch + 1) % run.evaluate_every == 0:
            figures = _judged(task, learner, clock, state.step)
        row = _row(epoch, state, ended, figures)
        state.rows = (*state.rows, row)  # pyright: ignore[reportAttributeAccessIssue]
        clock.post(state.step, "evaluated")
        if last and task.rank == 0:
            _keep(run, figures, task)
        if last or len(state.rows) % run.checkpoints.every_epochs == 0:
            saver.save(state)
    saver.close(partial(clock.post, state.step, "saving"))
    clock.post(state.step, "done")
    if line is not None:
        line.close()


def _note_conditions(task: DenseRank, state: TrainingState) -> None:
    """Write down what the training runs on from here, where it is not as before. Rank 0 measures; the others wait."""
    if task.rank == 0:
        import ray

        found = conditions(
            task.device,
            step=state.step,
            world_size=task.world_size,
            precision=task.run.recipe.precision,
            bn_batch=task.order.local(0, task.world_size),
            versions={"ray": ray.__version__},
        )
        state.note_conditions(found)
    torch.distributed.barrier()


def _judged(task: DenseRank, learner: DenseLearner, clock: RunClock, step: int) -> dict[str, Any]:
    """The figures of the validation split, the same on all ranks."""
    figures: dict[str, Any] = {}
    with clock.beside(step, "evaluating", task.feed.val.examples) as done:
        for found in learner.evaluate():
            if isinstance(found, int):
                done(found)
            else:
                figures = found
    told = [figures]
    torch.distributed.broadcast_object_list(told, src=0)
    return told[0]


def _row(epoch: int, state: TrainingState, ended: Epoch, figures: dict[str, Any]) -> DenseRow:
    loss, _, count = ended.sums
    return DenseRow(
        epoch=epoch,
        step=state.step,
        lr=state.lr,
        train_loss=loss / count,
        **{name: value for name, value in figures.items() if name != "by_class"},
        seconds=ended.seconds,
        cpu_seconds=ended.cpu_seconds,
        data_wait_fraction=ended.wait / ended.seconds,
        images_per_second=count / ended.seconds,
    )


def _keep(run: DenseRun, figures: dict[str, Any], task: DenseRank) -> None:
    """Write the finished network's figures into the run's folder; NaN, of a class that is not there, as null."""
    by_class = [
        {"name": c.name, "value": None if math.isnan(value) else value}
        for c, value in itertools.zip_longest(task.feed.classes, figures["by_class"])
    ]
    with Folder(run.folder).writing(FINAL_FIGURES) as target:
        target.write(json.dumps(figures | {"by_class": by_class}, indent=1).encode())


def _clock(task: DenseRank, saver: DenseSaver, state: TrainingState) -> RunClock:
    """Rank 0's statuses of this training."""
    run, train, val = task.run, task.feed.train.examples, task.feed.val.examples
    every = run.evaluate_every * task.order.steps_per_epoch
    left = TimeLeft(task.total, run.recipe.optim.batch_size, every, train, val, 0, CLOSING)
    return RunClock(saver.line, left, task.world_size, partial(_status, task, saver, state))


def _status(task: DenseRank, saver: DenseSaver, state: TrainingState) -> dict[str, Any]:
    """Fields of a status beside the time. Between two epochs the figures are those of the last."""
    assert saver.writer is not None, "rank 0 posts"
    rows: Any = state.rows
    loss = rows[-1].train_loss if rows else math.nan
    if float(state.sums[2]) > 0:
        loss = float(state.sums[0] / state.sums[2])
    quality = next((row.quality for row in reversed(rows) if row.quality is not None), None)
    name, spe = NAMES[task.run.recipe.task], task.order.steps_per_epoch
    return {
        "run": task.run.name,
        "total": task.total,
        "epoch": state.step / spe,
        "epochs": task.total / spe,
        "loss": loss,
        "error": math.nan,
        "quality": f"{name} -" if quality is None else f"{name} {quality:.1f} %",
        "data_wait": state.wait_fraction(),
        "saved": saver.writer.written,
        "answers": saver.answers,
        "trouble": saver.writer.trouble,
        "rows": tuple(row.model_dump() for row in rows),
        "conditions": state.conditions[-1].tags() if state.conditions else {},
    }
