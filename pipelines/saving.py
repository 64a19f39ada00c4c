"""What a run is at a step, and when it is saved: rank 0 writes beside the training, all ranks agree on the step."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pipelines.checkpoints import Checkpoints, Writer
from pipelines.learner import Learner, copied
from pipelines.progress import Line
from pipelines.task import Task
from resnet.checkpoint import Checkpoint, Progress
from resnet.conditions import Conditions
from resnet.finite import NotFinite, no_bad_step, see_
from resnet.norms import LayerNorms

PREEMPTION_EVERY = 15.0  # seconds between two questions of whether a node is about to be taken away


class Epoch(NamedTuple):
    """An epoch over all ranks. sums: loss, top-1 errors, examples; replaced: images that could not be decoded;
    seconds, wait: wall time of the training and of waiting for data; cpu_seconds: of all ranks."""

    sums: list[float]
    replaced: float
    seconds: float
    wait: float
    cpu_seconds: float


class State:
    """What a run is at a step, beside weights and momentum. sums: (3,) of the epoch so far, this rank's own part."""

    def __init__(self, device: torch.device, saved: Progress | None, rank: int) -> None:
        self.step, self.rows, self.lr = 0, (), 0.0
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        self.bad = no_bad_step(device)
        self.seconds = self.wait = self.cpu_seconds = 0.0
        self.conditions: tuple[Conditions, ...] = ()
        self.norms: tuple[LayerNorms, ...] = ()
        self.replaced = 0  # training images of the epoch so far, of this rank, that could not be decoded
        self._since, self._cpu_since = time.monotonic(), time.process_time()
        if saved is not None:
            self.step, self.rows, self.seconds, self.wait = saved.step, saved.rows, saved.seconds, saved.wait
            self.conditions, self.norms = saved.conditions, saved.norms
            if rank == 0:  # sums of all ranks come back on one
                self.sums += torch.tensor(saved.sums, dtype=torch.float64, device=device)
                self.cpu_seconds = saved.cpu_seconds

    def add(self, sums: Tensor) -> None:
        """Count a step. Nothing here waits for the device."""
        self.sums += sums
        see_(self.bad, sums, self.step)

    def start(self) -> None:
        """Begin to take time: what was since the last mark, an evaluation or a start, is no training."""
        self._since, self._cpu_since = time.monotonic(), time.process_time()

    def mark(self) -> None:
        """Take the time since the last mark as training."""
        now, cpu = time.monotonic(), time.process_time()
        self.seconds, self._since = self.seconds + now - self._since, now
        self.cpu_seconds, self._cpu_since = self.cpu_seconds + cpu - self._cpu_since, cpu

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time within is time that the training waited for data."""
        began = time.perf_counter()
        yield
        self.wait += time.perf_counter() - began

    def close(self) -> Epoch:
        """End an epoch: what it was, over all ranks. All starts anew."""
        counts = torch.tensor([float(self.replaced), self.cpu_seconds], dtype=torch.float64, device=self.sums.device)
        replaced, cpu_seconds = all_reduce(counts)
        ended = Epoch(all_reduce(self.sums), replaced, self.seconds, self.wait, cpu_seconds)
        self.sums.zero_()
        self.seconds = self.wait = self.cpu_seconds = 0.0
        self.replaced = 0
        return ended


class Saver:
    """When and how the state is saved. Rank 0 writes, beside the training; all ranks agree on the step.

    line: rank 0's to its job; is_preempted: whether a node is about to be taken away, a barrier of all ranks; None:
    nodes stay.
    """

    def __init__(
        self,
        task: Task,
        learner: Learner,
        checkpoints: Checkpoints,
        state: State,
        line: Line | None = None,
        is_preempted: Callable[[], bool] | None = None,
    ) -> None:
        self.task, self.learner, self.checkpoints = task, learner, checkpoints
        self.line, self.is_preempted = line, is_preempted
        self.writer = Writer(checkpoints) if task.rank == 0 else None
        self.saved_step, self.saved_at = state.step, time.monotonic()
        self.looked_at, self.preempted = time.monotonic(), False

    def agree(self, state: State) -> None:
        """Save inside the epoch if steps, minutes or a request say so. Called by all ranks at the same steps."""
        self.require_finite(state)
        plan = self.task.run.checkpoints
        save = look = False
        if self.line is not None:
            now = time.monotonic()
            save = plan.every_steps is not None and state.step - self.saved_step >= plan.every_steps
            save |= plan.every_minutes is not None and now - self.saved_at >= 60 * plan.every_minutes
            save |= self.line.asked()
            look = self.is_preempted is not None and now - self.looked_at > PREEMPTION_EVERY
        flags = torch.tensor([int(save), int(look)], device=self.task.device)
        torch.distributed.broadcast(flags, src=0)
        save, look = (bool(flag) for flag in flags.tolist())
        if look and self.is_preempted is not None:  # a barrier of all ranks, so not in each step
            self.looked_at = time.monotonic()
            preempted = self.is_preempted()
            save |= preempted and not self.preempted
            self.preempted = preempted
        if save:
            state.mark()
            self.save(state)

    def save(self, state: State) -> None:
        """Copy the state and hand it to the writer. Called by all ranks."""
        *sums, cpu_seconds = all_reduce(torch.cat([state.sums, state.sums.new_tensor([state.cpu_seconds])]))
        self.saved_step, self.saved_at = state.step, time.monotonic()
        if self.writer is None:
            return
        task, (model, rest) = self.task, self.learner.tensors()
        self.writer.submit(
            Checkpoint(
                model=model,
                optimizer=rest,
                pixels=copied({"mean": task.normalize.mean, "std": task.normalize.std}),
                run=self.learner.run(),
                progress=Progress(
                    step=state.step,
                    total_steps=task.total,
                    examples=task.feed.val.examples,
                    classes=task.feed.classes,
                    rows=state.rows,
                    grey_range=task.feed.grey_range,
                    sums=tuple(sums),
                    seconds=state.seconds,
                    wait=state.wait,
                    cpu_seconds=cpu_seconds,
                    conditions=state.conditions,
                    norms=state.norms,
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


def all_reduce(sums: Tensor) -> list[float]:
    """Sums over all ranks."""
    total = sums.clone()
    torch.distributed.all_reduce(total)
    return total.tolist()
