"""The training loop of one rank: DDP inside a Ray Train worker, fed by pipelines/stream.py."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pipelines import progress, stream
from pipelines.checkpoints import Checkpoints, Writer
from pipelines.feed import Feed
from pipelines.order import Order
from pipelines.run import Run
from resnet import build
from resnet.checkpoint import (
    Checkpoint,
    EpochRow,
    Progress,
    optimizer_tensors,
    restore_optimizer,
)
from resnet.optim import EpochErrors, lr_at, optimizer
from resnet.steps import Normalize, autocast, eval_step, native_precision, train_step

POST_EVERY = 1.0  # seconds between two statuses of rank 0
PREEMPTION_EVERY = 15.0  # seconds between two questions of whether a node is about to be taken away
AGREE_EVERY = 16  # steps between two questions of whether to save inside an epoch


class NotFinite(RuntimeError):
    """The training loss is not a number any more: trying again gives the same."""


# A mistake in the data, the settings or the program. Lost peers, nodes and connections raise others.
AGAIN_THE_SAME = (NotFinite, ValueError, TypeError, LookupError, AttributeError, NameError, ImportError, AssertionError)


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

    def ids(self, epoch: int, step: int) -> list[int]:
        """Places in the training split of the global batch of a step of an epoch."""
        window, skip = self.order.remaining(epoch, step)[0]
        groups, rows = self.order.batches(epoch, window)
        return (self.feed.train.starts()[groups[skip]] + rows[skip]).tolist()

    def tensors(self, batch: stream.Batch) -> tuple[Tensor, Tensor]:
        """Pixels (N, 3, S, S), normalised on the device, and labels (N,)."""
        images = torch.from_numpy(batch.images).to(self.device, non_blocking=True)
        labels = torch.from_numpy(batch.labels).to(self.device, non_blocking=True)
        shift = None if batch.shift is None else torch.from_numpy(batch.shift).to(self.device, non_blocking=True)
        return self.normalize(images, shift), labels


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
    torch.set_num_threads(run.scaling.threads or 1)
    precision = native_precision(device) if run.scaling.precision == "auto" else run.scaling.precision
    task = Task(run, feed, rank, world_size, device)

    torch.manual_seed(run.seed)  # the same initial weights on every rank, and whatever their number
    network = build(run.recipe.network, len(feed.classes)).to(device).to(memory_format=torch.channels_last)
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
            state.add(train_step(model, optim, *task.tensors(batch), precision))
            state.step += 1
            clock.tick(state)
            if state.step % AGREE_EVERY == 0 and state.step < min(task.total, (epoch + 1) * spe):
                saver.agree(state)  # may save inside the epoch

        saver.require_finite(state)
        state.mark()
        train, seconds, wait = state.close()
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
        )
        state.rows = (*state.rows, row)
        clock.post(state, "evaluated")
        last = state.step == task.total
        if last or len(state.rows) % run.checkpoints.every_epochs == 0:
            saver.save(state)
        if report:
            ray.train.report({"step": row.step, "top1_error": row.top1_error, "train_error": row.train_error})
    saver.close()
    clock.post(state, "done")


class State:
    """What a run is at a step, beside weights and momentum. sums: (3,) of the epoch so far, this rank's own part."""

    def __init__(self, device: torch.device, saved: Progress | None, rank: int) -> None:
        self.step, self.rows, self.lr = 0, (), 0.0
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        self.bad = torch.full((), -1, dtype=torch.int64, device=device)  # first step whose loss is not finite
        self.seconds = self.wait = 0.0
        self._since = time.monotonic()
        if saved is not None:
            self.step, self.rows, self.seconds, self.wait = saved.step, saved.rows, saved.seconds, saved.wait
            if rank == 0:  # sums of all ranks come back on one
                self.sums += torch.tensor(saved.sums, dtype=torch.float64, device=device)

    def add(self, sums: Tensor) -> None:
        """Count a step. Nothing here waits for the device."""
        self.sums += sums
        self.bad = torch.where((self.bad < 0) & ~torch.isfinite(sums[0]), self.step, self.bad)

    def mark(self) -> None:
        """Take the time since the last mark as training."""
        now = time.monotonic()
        self.seconds, self._since = self.seconds + now - self._since, now

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time within is time that the training waited for data."""
        began = time.perf_counter()
        yield
        self.wait += time.perf_counter() - began

    def close(self) -> tuple[list[float], float, float]:
        """End an epoch: sums over all ranks, seconds of training, seconds of waiting; all start again from zero."""
        ended = _all_reduce(self.sums), self.seconds, self.wait
        self.sums.zero_()
        self.seconds = self.wait = 0.0
        return ended


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


class Saver:
    """When and how the state is saved. Rank 0 writes, beside the training; all ranks agree on the step."""

    def __init__(
        self, task: Task, network: nn.Module, optim: torch.optim.Optimizer, checkpoints: Checkpoints, state: State
    ) -> None:
        self.task, self.network, self.optim, self.checkpoints = task, network, optim, checkpoints
        self.writer = Writer(checkpoints) if task.rank == 0 else None
        self.saved_step, self.saved_at = state.step, time.monotonic()
        self.looked_at, self.preempted = time.monotonic(), False

    def agree(self, state: State) -> None:
        """Save inside the epoch if steps, minutes or a request say so. Called by all ranks at the same steps."""
        import ray.train

        self.require_finite(state)
        plan = self.task.run.checkpoints
        save = look = False
        if self.task.rank == 0:
            now = time.monotonic()
            save = plan.every_steps is not None and state.step - self.saved_step >= plan.every_steps
            save |= plan.every_minutes is not None and now - self.saved_at >= 60 * plan.every_minutes
            save |= progress.save_is_wanted(self.task.run.name)
            look = now - self.looked_at > PREEMPTION_EVERY
        flags = torch.tensor([int(save), int(look)], device=self.task.device)
        torch.distributed.broadcast(flags, src=0)
        save, look = (bool(flag) for flag in flags.tolist())
        if look:  # a barrier of all ranks, so not in each step
            self.looked_at = time.monotonic()
            preempted = ray.train.get_preemption_info() is not None
            save |= preempted and not self.preempted
            self.preempted = preempted
        if save:
            state.mark()
            self.save(state)

    def save(self, state: State) -> None:
        """Copy the state and hand it to the writer. Called by all ranks."""
        sums = _all_reduce(state.sums)
        self.saved_step, self.saved_at = state.step, time.monotonic()
        if self.writer is None:
            return
        task = self.task
        self.writer.submit(
            Checkpoint(
                model=_copy(self.network.state_dict()),
                optimizer=_copy(optimizer_tensors(self.network, self.optim)),
                pixels=_copy({"mean": task.normalize.mean, "std": task.normalize.std}),
                run=task.run.model_dump(mode="json"),
                progress=Progress(
                    step=state.step,
                    total_steps=task.total,
                    examples=task.feed.val.examples,
                    classes=task.feed.classes,
                    rows=state.rows,
                    sums=tuple(sums),
                    seconds=state.seconds,
                    wait=state.wait,
                ),
            )
        )

    def require_finite(self, state: State) -> None:
        """End the training if a loss was not finite. Such weights are never saved: this comes before each save."""
        task = self.task
        first = torch.where(state.bad < 0, task.total, state.bad)
        torch.distributed.all_reduce(first, op=torch.distributed.ReduceOp.MIN)
        step = int(first)
        if step == task.total:
            return
        if self.writer is not None:
            self.writer.flush()
            names = self.checkpoints.names()
            epoch, inside = divmod(step, task.order.steps_per_epoch)
            raise NotFinite(
                f"the training loss is not finite at step {step} (lr {state.lr:g}, epoch {epoch}, images "
                f"{task.ids(epoch, inside)} of the training split); the last good checkpoint is "
                f"{self.checkpoints.path(names[-1]) if names else 'none: it was before the first'}"
            )
        time.sleep(1)  # rank 0's words, which say more, are the first to be heard
        raise NotFinite(f"the training loss is not finite at step {step}")

    def close(self) -> None:
        """Wait for the last checkpoint. RuntimeError if it could not be written."""
        if self.writer is None:
            return
        self.writer.close()
        if self.writer.trouble:
            raise RuntimeError(self.writer.trouble)


def _copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def _all_reduce(sums: Tensor) -> list[float]:
    """Sums over all ranks."""
    total = sums.clone()
    torch.distributed.all_reduce(total)
    return total.tolist()


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
