"""The training loop of one rank: DDP inside a Ray Train worker, fed by pipelines/stream.py."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

import numpy as np
import torch
from torch import nn

from pipelines import progress
from pipelines.checkpoints import Checkpoints
from pipelines.feed import Feed
from pipelines.run import Run
from pipelines.saving import Saver, State, all_reduce
from pipelines.task import Task
from resnet import bn, build
from resnet.checkpoint import EpochRow, restore_optimizer
from resnet.finite import NotFinite
from resnet.mixing import draw, mix
from resnet.optim import EpochErrors, lr_at, optimizer
from resnet.steps import autocast, eval_step, native_precision, train_step

POST_EVERY = 1.0  # seconds between two statuses of rank 0
AGREE_EVERY = 16  # steps between two questions of whether to save inside an epoch


# A mistake in the data, the settings or the program. Lost peers, nodes and connections raise others.
AGAIN_THE_SAME = (NotFinite, ValueError, TypeError, LookupError, AttributeError, NameError, ImportError, AssertionError)


def train_worker(config: dict[str, Any]) -> None:
    """One rank. config: {"run": JSON of Run, "feed": Feed, "report": whether Ray is told of each epoch}.

    An error that another try would meet again is posted for the driver, and the next try ends at once; any other ends
    this try, and Ray Train starts the next.
    """
    run = Run.model_validate_json(config["run"])
    if progress.failure(run.name):
        return
    try:
        _loop(run, config["feed"], config["report"])
    except AGAIN_THE_SAME as error:
        progress.fail(run.name, str(error) if isinstance(error, ValueError | NotFinite) else repr(error))
        raise


def _loop(run: Run, feed: Feed, report: bool) -> None:
    """The training loop, from the newest checkpoint to the end."""
    import ray.train
    from ray.train import torch as ray_torch

    context = ray.train.get_context()
    rank, world_size, device = context.get_world_rank(), context.get_world_size(), ray_torch.get_device()
    # Ray may be told of more CPUs than there are; threads beyond the cores spin, and cost a factor of five.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(min(run.scaling.threads or 1, max(1, cores // context.get_local_world_size())))
    precision = native_precision(device) if run.scaling.precision == "auto" else run.scaling.precision
    task = Task(run, feed, rank, world_size, device)

    torch.manual_seed(run.seed)  # the same initial weights on every rank, and whatever their number
    recipe = run.recipe
    network = build(recipe.network, len(feed.classes), zero_init_last_bn=recipe.zero_init_last_bn)
    network = network.to(device).to(memory_format=torch.channels_last)
    optim = optimizer(network, run.recipe.optim)
    checkpoints = Checkpoints(f"{run.storage_path}/{run.name}", run.checkpoints.keep)
    model, state = _start(task, network, optim, checkpoints, precision)
    saver = Saver(task, network, optim, checkpoints, state)
    spe, clock = task.order.steps_per_epoch, _Clock(run, task, saver)

    while state.step < task.total:
        epoch, first = divmod(state.step, spe)
        history = [EpochErrors(row.step, row.train_error, row.top1_error) for row in state.rows]
        state.mark()
        batches = task.training(epoch, first)
        while state.step < min(task.total, (epoch + 1) * spe):
            with state.waiting():
                batch = next(batches)
            state.lr = lr_at(state.step, task.total, run.recipe.optim, run.recipe.schedule, history)
            for group in optim.param_groups:
                group["lr"] = state.lr
            state.replaced += batch.replaced
            pixels, target = task.tensors(batch)
            drawn = draw(np.random.default_rng((run.seed, epoch, state.step, 3)), recipe.loss, pixels.shape[-1])
            if drawn is not None:
                pixels, target = mix(pixels, target, drawn)
            smoothing = recipe.loss.label_smoothing
            state.add(train_step(model, optim, pixels, target, precision, label_smoothing=smoothing))
            state.step += 1
            clock.tick(state)
            if state.step % AGREE_EVERY == 0 and state.step < min(task.total, (epoch + 1) * spe):
                saver.agree(state)  # may save inside the epoch

        saver.require_finite(state)
        state.mark()
        last = state.step == task.total
        if last:
            _exact_statistics(task, network, epoch + 1, precision)
        train, replaced, seconds, wait = state.close()
        if replaced > run.data.max_replaced * train[2]:
            raise ValueError(
                f"{replaced:.0f} of {train[2]:.0f} training images of epoch {epoch} could not be decoded, more than "
                f"data.max_replaced allows, {run.data.max_replaced:g}; jobs/write_shards.py --verify names them"
            )
        val = _evaluate(task, network, precision)
        row = EpochRow(
            epoch=epoch,
            step=state.step,
            lr=state.lr,
            train_loss=train[0] / train[2],
            train_error=100 * train[1] / train[2],
            val_loss=val[0] / val[3],
            top1_error=100 * val[1] / val[3],
            top5_error=100 * val[2] / val[3],
            seconds=seconds,
            data_wait_fraction=wait / seconds,
            images_per_second=train[2] / seconds,
            replaced_images=int(replaced),
        )
        state.rows = (*state.rows, row)
        clock.post(state, "evaluated")
        if last or len(state.rows) % run.checkpoints.every_epochs == 0:
            saver.save(state)
        if report:
            ray.train.report({"step": row.step, "top1_error": row.top1_error, "train_error": row.train_error})
    saver.close()
    clock.post(state, "done")


def _start(
    task: Task, network: nn.Module, optim: torch.optim.Optimizer, checkpoints: Checkpoints, precision: str
) -> tuple[nn.parallel.DistributedDataParallel, State]:
    """DDP around the network, and the state to go on from on all ranks: the newest checkpoint's or the first."""
    found = checkpoints.latest() if task.rank == 0 else None
    initial = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    # Batch norm statistics are rank 0's: broadcast before each evaluation, not in each step.
    model = nn.parallel.DistributedDataParallel(network, broadcast_buffers=False)
    _settle(task, model, precision)
    network.load_state_dict(found[1].model if found else initial)
    momentum = found[1].optimizer if found else {}
    zeros = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    told = [found[1].progress if found else None]
    torch.distributed.broadcast_object_list(told, src=0)
    for tensor in network.state_dict().values():
        torch.distributed.broadcast(tensor, src=0)
    if told[0] is not None:  # a fresh optimiser has no momentum, which differs from a momentum of zero in its last bit
        restore_optimizer(network, optim, zeros | momentum)
        for name in zeros:
            torch.distributed.broadcast(optim.state[network.get_parameter(name)]["momentum_buffer"], src=0)
    return model, State(task.device, told[0], task.rank)


def _settle(task: Task, model: nn.parallel.DistributedDataParallel, precision: str) -> None:
    """Two passes without an update, so that DDP has rebuilt its buckets before the first step.

    It does so after its first pass: with three and more ranks a resumed run would add gradients in another order than
    the run that was never stopped, and differ in the last bit.
    """
    size = task.run.recipe.images.size
    pixels = torch.zeros(max(2, task.local), 3, size, size, device=task.device)
    for _ in range(2):
        with autocast(task.device, precision):
            model(pixels.to(memory_format=torch.channels_last)).float().sum().backward()
        model.zero_grad(set_to_none=True)


def _exact_statistics(task: Task, network: nn.Module, epoch: int, precision: str) -> None:
    """Batch norm's mean and variance as true averages over training batches, after training, as the authors did."""
    steps = task.run.recipe.bn_steps(task.feed.train.examples)
    if steps == 0:
        return
    batches = itertools.islice(task.training(epoch, 0), steps)
    sums = bn.statistics(network, (task.tensors(batch)[0] for batch in batches), precision)
    torch.distributed.all_reduce(sums)
    bn.set_statistics(network, sums)


@torch.no_grad()
def _evaluate(task: Task, network: nn.Module, precision: str) -> list[float]:
    """Sums over the whole validation split: loss, top-1 errors, top-5 errors, examples. Each example counts once."""
    for buffer in network.buffers():
        torch.distributed.broadcast(buffer, src=0)
    network.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=task.device)
    for batch in task.evaluation():
        sums += eval_step(network, *task.tensors(batch), precision)
    network.train()
    total = all_reduce(sums)
    if int(total[3]) != task.feed.val.examples:
        raise RuntimeError(f"evaluation counted {int(total[3])} of {task.feed.val.examples} images")
    return total


class _Clock:
    """Rank 0 posts how far the run is, about once a second."""

    def __init__(self, run: Run, task: Task, saver: Saver) -> None:
        self.run, self.task, self.saver = run, task, saver
        self.posted, self.mark = 0.0, (time.monotonic(), -1)
        self.pace = 0.0  # seconds a step, smoothed

    def tick(self, state: State) -> None:
        """After each step; rarely more than one comparison."""
        if self.task.rank == 0 and time.monotonic() - self.posted > POST_EVERY:
            self.post(state, "training")

    def post(self, state: State, phase: str) -> None:
        """Publish the status."""
        if self.saver.writer is None:
            return
        now, (then, before) = time.monotonic(), self.mark
        if 0 <= before < state.step:
            pace = (now - then) / (state.step - before)
            self.pace = pace if self.pace == 0 else 0.7 * self.pace + 0.3 * pace
        self.mark, self.posted = (now, state.step), now
        last = state.rows[-1] if state.rows else None
        if float(state.sums[2]) > 0:
            loss, wrong, _ = (state.sums / state.sums[2]).tolist()
        else:
            loss, wrong = (last.train_loss, last.train_error / 100) if last else (float("nan"), float("nan"))
        spe = self.task.order.steps_per_epoch
        progress.post(
            progress.Status(
                run=self.run.name,
                phase=phase,
                step=state.step,
                total=self.task.total,
                epoch=state.step / spe,
                epochs=self.task.total / spe,
                loss=loss,
                error=100 * wrong,
                images_per_second=self.run.recipe.optim.batch_size / self.pace if self.pace else 0.0,
                seconds_left=self.pace * (self.task.total - state.step),
                saved=self.saver.writer.written,
                trouble=self.saver.writer.trouble,
                rows=tuple(row.model_dump() for row in state.rows),
            )
        )
