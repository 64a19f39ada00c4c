"""The training loop of one rank: DDP inside a Ray Train worker, fed by pipelines/stream.py."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines import progress, stream
from pipelines.feed import Feed
from pipelines.order import Order
from pipelines.run import Run
from resnet import build
from resnet.checkpoint import (
    Checkpoint,
    EpochRow,
    Progress,
    load,
    optimizer_tensors,
    restore_optimizer,
    save,
)
from resnet.optim import EpochErrors, lr_at, optimizer
from resnet.steps import Normalize, eval_step, native_precision, train_step

POST_EVERY = 1.0  # seconds between two statuses of rank 0


class Task:
    """One rank's view of the run: which batches come, on which device they are computed."""

    def __init__(self, run: Run, feed: Feed, rank: int, world_size: int, device: torch.device) -> None:
        self.run, self.feed, self.rank, self.world_size, self.device = run, feed, rank, world_size, device
        self.cpus = run.scaling.data_cpus or 1.0
        optim = run.recipe.optim
        self.order = Order(feed.train.rows, optim.batch_size, run.data.window, run.seed)
        self.local = optim.batch_size // world_size
        self.total = run.recipe.total_steps(feed.train.examples)
        pixels = {name: torch.from_numpy(array) for name, array in feed.pixels.items()}
        self.normalize = Normalize(pixels["mean"], pixels["std"]).to(device)
        self.resident: dict[str, stream.Resident] = {}

    def split(self, name: str) -> stream.Resident:
        """A decoded split, fetched once; its arrays are views of the object store."""
        import ray

        assert self.feed.resident is not None
        if name not in self.resident:
            self.resident[name] = stream.Resident(*ray.get(self.feed.resident[name]))
        return self.resident[name]

    def training(self, epoch: int, first_step: int) -> Iterator[stream.Batch]:
        """This rank's batches of an epoch."""
        place = (epoch, first_step, self.rank, self.world_size)
        if self.feed.resident is not None:
            return stream.resident_batches(self.split("train"), self.order, self.run.recipe.images, *place)
        return stream.streamed_batches(self.feed.train, self.order, self.run.recipe.images, *place, self.cpus)

    def evaluation(self) -> Iterator[stream.Batch]:
        """This rank's part of the validation split."""
        size = max(self.local, 128)
        if self.feed.resident is not None:
            return stream.resident_evaluation(self.split("val"), size, self.rank, self.world_size)
        images = self.run.recipe.images
        return stream.streamed_evaluation(self.feed.val, images, size, self.rank, self.world_size, self.cpus)

    def tensors(self, batch: stream.Batch) -> tuple[Tensor, Tensor]:
        """Pixels (N, 3, S, S), normalised on the device, and labels (N,)."""
        images = torch.from_numpy(batch.images).to(self.device, non_blocking=True)
        labels = torch.from_numpy(batch.labels).to(self.device, non_blocking=True)
        shift = None if batch.shift is None else torch.from_numpy(batch.shift).to(self.device, non_blocking=True)
        return self.normalize(images, shift), labels


def train_worker(config: dict[str, Any]) -> None:
    """The loop of one rank. config: {"run": JSON of Run, "feed": Feed}."""
    import ray.train
    from ray.train import torch as ray_torch

    run, feed = Run.model_validate_json(config["run"]), config["feed"]
    context = ray.train.get_context()
    rank, world_size, device = context.get_world_rank(), context.get_world_size(), ray_torch.get_device()
    torch.set_num_threads(run.scaling.threads or 1)
    precision = native_precision(device) if run.scaling.precision == "auto" else run.scaling.precision
    task = Task(run, feed, rank, world_size, device)

    torch.manual_seed(run.seed)  # the same initial weights on every rank, and whatever their number
    network = build(run.recipe.network, len(feed.classes)).to(device).to(memory_format=torch.channels_last)
    optim = optimizer(network, run.recipe.optim)
    step, rows = 0, ()
    if (found := ray.train.get_checkpoint()) is not None:
        with found.as_directory() as folder:
            step, rows = _restore(load(folder), network, optim, run)
    # Batch norm statistics are rank 0's: broadcast before each evaluation, not in each step.
    model = nn.parallel.DistributedDataParallel(network, broadcast_buffers=False)

    spe = task.order.steps_per_epoch
    clock = _Clock(run, task.total, spe, rank)
    while step < task.total:
        epoch, first = divmod(step, spe)
        history = [EpochErrors(row.step, row.train_error, row.top1_error) for row in rows]
        sums, began = torch.zeros(3, dtype=torch.float64, device=device), time.monotonic()
        lr = 0.0
        for batch in task.training(epoch, first):
            lr = lr_at(step, task.total, run.recipe.optim, run.recipe.schedule, history)
            for group in optim.param_groups:
                group["lr"] = lr
            sums += train_step(model, optim, *task.tensors(batch), precision)
            step += 1
            clock.tick(step, sums, rows)
            if step == task.total:
                break
        seconds = time.monotonic() - began

        train = _all_reduce(sums)
        _require_finite(train, step, lr, rank)
        val = _evaluate(task, network, precision)
        row = EpochRow(
            epoch=epoch,
            step=step,
            lr=lr,
            train_loss=train[0] / train[2],
            train_error=100 * train[1] / train[2],
            val_loss=val[0] / val[3],
            top1_error=100 * val[1] / val[3],
            top5_error=100 * val[2] / val[3],
            seconds=seconds,
            images_per_second=train[2] / seconds,
        )
        rows = (*rows, row)
        done = Progress(step=step, total_steps=task.total, examples=int(val[3]), classes=feed.classes, rows=rows)
        clock.post(step, sums, rows, "saving")
        if len(rows) % run.checkpoints.every_epochs == 0 or step == task.total:
            _report(task, network, optim, done)


def _restore(
    checkpoint: Checkpoint, network: nn.Module, optim: torch.optim.Optimizer, run: Run
) -> tuple[int, tuple[EpochRow, ...]]:
    """Go on where a checkpoint stopped: steps done, and the rows so far."""
    network.load_state_dict(checkpoint.model)
    restore_optimizer(network, optim, checkpoint.optimizer)
    return checkpoint.progress.step, checkpoint.progress.rows


def _all_reduce(sums: Tensor) -> list[float]:
    """Sums over all ranks."""
    total = sums.clone()
    torch.distributed.all_reduce(total)
    return total.tolist()


def _require_finite(train: list[float], step: int, lr: float, rank: int) -> None:
    if not np.isfinite(train[0]):
        raise RuntimeError(f"the training loss is {train[0]} before step {step} with lr {lr:g}: training stops")


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
    total = _all_reduce(sums)
    if int(total[3]) != task.feed.val.examples:
        raise RuntimeError(f"evaluation counted {int(total[3])} of {task.feed.val.examples} images")
    return total


def _report(task: Task, network: nn.Module, optim: torch.optim.Optimizer, done: Progress) -> None:
    """Save the state and report it to Ray Train, which keeps the last checkpoint and the best."""
    import ray.train

    last = done.rows[-1]
    metrics = {"step": done.step, "top1_error": last.top1_error, "train_error": last.train_error, "lr": last.lr}
    if task.rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as folder:
        pixels = {"mean": task.normalize.mean, "std": task.normalize.std}
        state = Checkpoint(
            model=network.state_dict(),
            optimizer=optimizer_tensors(network, optim),
            pixels=pixels,
            run=task.run.model_dump(mode="json"),
            progress=done,
        )
        save(Path(folder) / "state", state)
        ray.train.report(
            metrics,
            checkpoint=ray.train.Checkpoint.from_directory(str(Path(folder) / "state")),
            checkpoint_dir_name=f"step-{done.step:08d}",
        )


class _Clock:
    """Rank 0 posts how far the run is, about once a second."""

    def __init__(self, run: Run, total: int, steps_per_epoch: int, rank: int) -> None:
        self.run, self.total, self.spe, self.rank = run, total, steps_per_epoch, rank
        self.posted, self.mark = 0.0, (time.monotonic(), -1)
        self.pace = 0.0  # seconds a step, smoothed

    def tick(self, step: int, sums: Tensor, rows: tuple[EpochRow, ...]) -> None:
        """After each step; rarely more than one comparison."""
        if self.rank == 0 and (time.monotonic() - self.posted > POST_EVERY or step == self.total):
            self.post(step, sums, rows, "training")

    def post(self, step: int, sums: Tensor, rows: tuple[EpochRow, ...], phase: str) -> None:
        """Publish the status."""
        if self.rank != 0:
            return
        now, (then, before) = time.monotonic(), self.mark
        if 0 <= before < step:
            pace = (now - then) / (step - before)
            self.pace = pace if self.pace == 0 else 0.7 * self.pace + 0.3 * pace
        self.mark, self.posted = (now, step), now
        loss, wrong, _ = (sums / sums[2].clamp(min=1)).tolist()
        progress.post(
            progress.Status(
                run=self.run.name,
                phase=phase,
                step=step,
                total=self.total,
                epoch=step / self.spe,
                epochs=self.total / self.spe,
                loss=loss,
                error=100 * wrong,
                images_per_second=self.run.recipe.optim.batch_size / self.pace if self.pace else 0.0,
                seconds_left=self.pace * (self.total - step),
                rows=tuple(row.model_dump() for row in rows),
            )
        )
