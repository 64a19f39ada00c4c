"""The training loop of one rank: DDP inside a Ray Train worker, fed by pipelines/stream/streamed.py."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from pipelines.cluster import free_cpus
from pipelines.cluster.planning.node_engines import engines_named
from pipelines.models.checkpoint_store import CheckpointStore
from pipelines.progress import postings
from pipelines.progress.run_clock import TEST, RunClock
from pipelines.progress.time_left import TimeLeft
from pipelines.run import Run
from pipelines.training.final_scoring import test_finished
from pipelines.training.guards.lasting_causes import told_to_the_driver
from pipelines.training.guards.starting_point import start_checkpoint
from pipelines.training.learner import Learner
from pipelines.training.rank_data import RankData, placed
from pipelines.training.run_data import WorkerData
from pipelines.training.run_folder import RunFolder
from pipelines.training.saving import Saver
from pipelines.training.training_state import Epoch, TrainingState, all_reduce
from resnet.images import jpeg_region
from resnet.training import batch_norm_statistics
from resnet.training.checkpoint import EpochRow
from resnet.training.conditions import conditions
from resnet.training.finetuning.epoch_choice import chosen, class_error, ends_early
from resnet.training.gradient_norms import LayerNorms, is_watched, layer_norms
from resnet.training.lr_schedule import EpochErrors, lr_at
from resnet.training.step import eval_step

CLOSING = 8.0  # seconds, about, from the last word of the workers to the outcome: records, registry, curves


def train_worker(config: dict[str, Any]) -> None:
    """One rank. config: {"run": JSON of Run, "feed": WorkerData, "report": whether Ray is told of each epoch}.

    An error that another try would meet again is posted for the driver, and the next try ends at once; any other ends
    this try, and Ray Train starts the next.
    """
    run = Run.model_validate_json(config["run"])
    if postings.failure(run.name):
        return
    with told_to_the_driver(run.name):
        train(_task(run, config["feed"]), _report if config["report"] else None, _is_preempted)


def _task(run: Run, feed: WorkerData) -> RankData:
    """This worker's view of the run, as Ray Train has placed it."""
    # A resident set has no data tasks, and its workers need not ask the nodes.
    beside = free_cpus.here(run.scaling.data_cpus or 1.0) if feed.resident is None else None
    return RankData(run, feed, *placed(run.scaling), beside)


def train(
    task: RankData,
    report: Callable[[EpochRow], None] | None = None,
    is_preempted: Callable[[], bool] | None = None,
) -> None:
    """The training loop, from the newest checkpoint to the end. Needs a process group, and Ray for its statuses.

    report: told of each epoch; is_preempted: Saver's.
    """
    # Where it goes on: rank 0 reads the newest checkpoint, and the learner hands it to the others.
    run = task.run
    checkpoints = CheckpointStore.of(run)
    learner = Learner(task, start_checkpoint(run) if task.rank == 0 else None)
    state = TrainingState(task.device, learner.progress, task.rank)

    # Who is told: the driver by statuses, the storage by checkpoints.
    line = postings.StatusPoster(run.name) if task.rank == 0 else None
    saver = Saver(task, learner, checkpoints, state, line, is_preempted)
    spe, clock = task.order.steps_per_epoch, _clock(task, saver, state)
    if state.step < task.total:
        learner.capture()
        _note_conditions(task, learner, state)
        if task.rank == 0:
            RunFolder(run, task.feed.sha256).begin()

    # Epoch by epoch; the first may begin in its middle.
    selection = run.recipe.selection
    while state.step < task.total and not ends_early(state.rows, selection):
        epoch, first = divmod(state.step, spe)
        end = min(task.total, (epoch + 1) * spe)
        history = [EpochErrors(row.step, row.train_error, _nan(row.top1_error)) for row in state.rows]
        state.start()
        batches = task.training(epoch, first)

        # Step by step: a batch, its lr, one update; sums stay on the device.
        while state.step < end:
            with state.waiting():
                batch = next(batches)
            state.lr = lr_at(state.step, task.total, run.recipe.optim, run.recipe.schedule, history)
            state.took(batch)
            watched = is_watched(state.step, task.total)
            layers: dict[str, tuple[float, float]] = {}
            look = partial(_look, layers) if watched else None
            sums = learner.advance(batch, epoch, state.step, state.lr, look)
            # At a few steps the norms of each layer's gradient and weights are kept.
            if watched:
                loss, _, count = all_reduce(sums)
                state.norms = (*state.norms, LayerNorms(step=state.step, loss=loss / count, layers=layers))
            state.add(sums)
            state.step += 1
            # Once in a while the ranks agree whether to save inside the epoch.
            clock.tick(state.step)
            if state.step < end and saver.is_due(state.step):
                saver.agree(state)

        # The epoch has ended: batch norm's statistics after the last, then the evaluation where it is due.
        saver.require_finite(state)
        state.mark()
        last = state.step == task.total
        if last:
            learner.finish()
            with clock.beside(state.step, "statistics"):
                _exact_statistics(task, learner, epoch + 1)
        ended = state.close()
        _require_images(run, ended, epoch)
        due = last or (epoch + 1) % run.evaluate_every == 0
        val = None
        if due:
            with clock.beside(state.step, "evaluating", task.feed.val.examples) as done:
                val = _evaluate(task, learner, done)
        row = _row(epoch, state, ended, val)

        # The row is kept, the state saved, and Ray told.
        state.rows = (*state.rows, row)
        clock.post(state.step, "evaluated")
        best = selection.by != "last" and chosen(state.rows, selection) is row
        if last or ends_early(state.rows, selection):
            learner.finish()
            saver.take_best(state)
            saver.save(state)
        elif best or len(state.rows) % run.checkpoints.every_epochs == 0:
            saver.save(state, wait=best)
        if report is not None and row.top1_error is not None:
            report(row)

    # The finished network is tested once more, on both splits. What is saved before is not trained again.
    saver.close(partial(clock.post, state.step, "saving"))
    with clock.beside(state.step, TEST, task.feed.train.examples + task.feed.val.examples) as done:
        test_finished(task, learner, done)
    clock.post(state.step, "done")
    if line is not None:
        line.close()


def _note_conditions(task: RankData, learner: Learner, state: TrainingState) -> None:
    """Write down what the training runs on from here, where it is not as before. Rank 0 measures; the others wait."""
    engines: list[Any] = [None] * task.world_size
    torch.distributed.all_gather_object(engines, jpeg_region.best().name)
    if task.rank != 0:
        return
    import ray

    found = conditions(
        task.device,
        step=state.step,
        world_size=task.world_size,
        precision=learner.precision,
        bn_batch=task.order.part,
        versions={"ray": ray.__version__},
        jpeg_engine=engines_named(engines),
        compiled=learner.compiled,
        captured=learner.replayed is not None,
    )
    state.note_conditions(found)


def _look(layers: dict[str, tuple[float, float]], network: nn.Module, scale: float) -> None:
    layers.update(layer_norms(network, scale))


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _require_images(run: Run, ended: Epoch, epoch: int) -> None:
    """ValueError: more of the epoch's images could not be decoded than the run allows."""
    if ended.replaced > run.data.max_replaced * ended.sums[2]:
        raise ValueError(
            f"{ended.replaced:.0f} of {ended.sums[2]:.0f} training images of epoch {epoch} could not be decoded, more "
            f"than data.max_replaced allows, {run.data.max_replaced:g}; jobs/write_shards.py --verify names them"
        )


def _row(epoch: int, state: TrainingState, ended: Epoch, val: list[float] | None) -> EpochRow:
    """The figures of an epoch. val: of _evaluate, or None."""
    loss, wrong, count = ended.sums
    evaluated = {}
    if val is not None:
        evaluated = {
            "val_loss": val[0] / val[3],
            "top1_error": 100 * val[1] / val[3],
            "top5_error": 100 * val[2] / val[3],
            "class_error": class_error(val[4:]),
        }
    return EpochRow(
        epoch=epoch,
        step=state.step,
        lr=state.lr,
        train_loss=loss / count,
        train_error=100 * wrong / count,
        **evaluated,
        seconds=ended.seconds,
        cpu_seconds=ended.cpu_seconds,
        data_wait_fraction=ended.wait / ended.seconds,
        images_per_second=count / ended.seconds,
        replaced_images=int(ended.replaced),
    )


def _report(row: EpochRow) -> None:
    """Tell Ray: a barrier of all ranks."""
    import ray.train

    ray.train.report({"step": row.step, "top1_error": row.top1_error, "train_error": row.train_error})


def _is_preempted() -> bool:
    """True if Ray has heard that a node of this training is about to be taken away: a barrier of all ranks."""
    import ray.train

    return ray.train.get_preemption_info() is not None


def _exact_statistics(task: RankData, learner: Learner, epoch: int) -> None:
    """Batch norm's mean and variance as true averages over training batches, after training, as the authors did."""
    steps = task.run.recipe.bn_steps(task.feed.train.examples)
    if steps == 0:
        return
    batches = itertools.islice(task.training(epoch, 0), steps)
    passes = (part for batch in batches for part in task.tensors(batch)[0].split(task.order.part))
    sums = batch_norm_statistics.statistics(learner.network, passes, learner.precision)
    torch.distributed.all_reduce(sums)
    batch_norm_statistics.set_statistics(learner.network, sums)


@torch.no_grad()
def _evaluate(task: RankData, learner: Learner, done: Callable[[int], None]) -> list[float]:
    """Sums over the whole validation split, as eval_step has them. Each example counts once.

    done: told of this rank's images as they go by.
    """
    classes = len(task.feed.classes)
    sums = torch.zeros(4 + 2 * classes, dtype=torch.float64, device=task.device)
    with learner.evaluated() as network:
        for batch in task.evaluation():
            sums += eval_step(network, *task.tensors(batch), learner.precision, classes)
            done(len(batch.labels))
    total = all_reduce(sums)
    if int(total[3]) != task.feed.val.examples:
        raise RuntimeError(f"evaluation counted {int(total[3])} of {task.feed.val.examples} images")
    return total


def _clock(task: RankData, saver: Saver, state: TrainingState) -> RunClock:
    """Rank 0's statuses of this training."""
    run, train, val = task.run, task.feed.train.examples, task.feed.val.examples
    batch, every = run.recipe.optim.batch_size, run.evaluate_every * task.order.steps_per_epoch
    left = TimeLeft(task.total, batch, every, train, val, run.recipe.bn_steps(train), CLOSING)
    return RunClock(saver.line, left, task.world_size, partial(_figures, task, saver, state))


def _figures(task: RankData, saver: Saver, state: TrainingState) -> dict[str, Any]:
    """The fields of a status beside the time. Between two epochs the errors are those of the last."""
    assert saver.writer is not None, "rank 0 posts"
    last = state.rows[-1] if state.rows else None
    loss, error = (last.train_loss, last.train_error) if last else (math.nan, math.nan)
    if float(state.sums[2]) > 0:
        loss, wrong, _ = (state.sums / state.sums[2]).tolist()
        error = 100 * wrong
    spe = task.order.steps_per_epoch
    return {
        "run": task.run.name,
        "total": task.total,
        "epoch": state.step / spe,
        "epochs": task.total / spe,
        "loss": loss,
        "error": error,
        "data_wait": state.wait_fraction(),
        "loader": state.loader.take(),
        "saved": saver.writer.written,
        "answers": saver.answers,
        "trouble": saver.writer.trouble,
        "rows": tuple(row.model_dump() for row in state.rows),
        "conditions": state.conditions[-1].tags() if state.conditions else {},
    }
