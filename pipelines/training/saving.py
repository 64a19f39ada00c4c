"""Saving the state of a run: rank 0 writes beside the training, all ranks agree on the step."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from pipelines.models.checkpoint_store import CheckpointStore, Writer
from pipelines.progress.postings import StatusPoster
from pipelines.training.guards.lasting_causes import CannotSave
from pipelines.training.learner import Learner, copied
from pipelines.training.rank_data import RankData
from pipelines.training.training_state import TrainingState, all_reduce
from resnet.training.checkpoint import Checkpoint, Progress
from resnet.training.finetuning.epoch_choice import chosen
from resnet.training.finite_loss import NotFinite

AGREE_EVERY = 16  # steps at most between two questions of whether to save inside an epoch,
AGREE_WITHIN = 1.0  # and seconds, about, where a step takes long
PREEMPTION_EVERY = 15.0  # seconds between two questions of whether a node is about to be taken away


class Saver:
    """When and how the state is saved. Rank 0 writes, beside the training; all ranks agree on the step.

    line: rank 0's to its job; is_preempted: whether a node is about to be taken away, a barrier of all ranks; None:
    nodes stay.
    """

    def __init__(
        self,
        task: RankData,
        learner: Learner,
        checkpoints: CheckpointStore,
        state: TrainingState,
        line: StatusPoster | None = None,
        is_preempted: Callable[[], bool] | None = None,
    ) -> None:
        self.task, self.learner, self.checkpoints = task, learner, checkpoints
        self.line, self.is_preempted = line, is_preempted
        self.writer = Writer(checkpoints) if task.rank == 0 else None
        self.saved_step, self.saved_at = state.step, time.monotonic()
        self.looked_at, self.preempted = time.monotonic(), False
        # Each worker's first step takes longer: the pace is that of the second.
        self.agreed_step, self.agreed_at, self.next_step = state.step, 0.0, state.step + 1
        self.requested: list[str] = []  # the checkpoint that answers each request to save

    @property
    def answers(self) -> int:
        """Requests to save that have been met, on rank 0: what they asked for is written."""
        written = self.writer.written if self.writer is not None else None
        return sum(written is not None and name <= written for name in self.requested)

    def is_due(self, step: int) -> bool:
        """True if the ranks are to agree at a step: the same answer on all of them."""
        return step >= self.next_step

    def agree(self, state: TrainingState) -> None:
        """Save inside the epoch if steps, minutes or a request say so. Called by all ranks at the same steps."""
        self.require_finite(state)
        save = look = False
        if self.line is not None:
            now = time.monotonic()
            save = self._is_planned(state.step, now)
            if self.line.asked():
                save = True
                self.requested.append(CheckpointStore.name_of(state.step))
            look = self.is_preempted is not None and now - self.looked_at > PREEMPTION_EVERY
        flags = torch.tensor([int(save), int(look), self._pace_of_questions(state.step)], device=self.task.device)
        torch.distributed.broadcast(flags, src=0)
        save, look, every = flags.tolist()
        self.next_step = (state.step // int(every) + 1) * int(every)
        self.agreed_step, self.agreed_at = state.step, time.monotonic()
        if look and self.is_preempted is not None:  # a barrier of all ranks, so not in each step
            self.looked_at = time.monotonic()
            preempted = self.is_preempted()
            save |= preempted and not self.preempted
            self.preempted = preempted
        if save:
            state.mark()
            self.save(state)

    def _is_planned(self, step: int, now: float) -> bool:
        """True if so many steps or minutes have gone by since the last save."""
        plan = self.task.run.checkpoints
        by_steps = plan.every_steps is not None and step - self.saved_step >= plan.every_steps
        return by_steps or (plan.every_minutes is not None and now - self.saved_at >= 60 * plan.every_minutes)

    def _pace_of_questions(self, step: int) -> int:
        """Steps between two questions, 1, 2, 4, 8 or 16, by the pace since the last one; 1 after the first step."""
        if self.agreed_at == 0.0:
            return 1
        pace, every = (time.monotonic() - self.agreed_at) / max(1, step - self.agreed_step), AGREE_EVERY
        while every > 1 and every * pace > AGREE_WITHIN:
            every //= 2
        return every

    def save(self, state: TrainingState, *, wait: bool = False) -> None:
        """Copy the state and hand it to the writer. Called by all ranks. wait: until it is written, for a checkpoint
        that a later one must not replace before."""
        *sums, cpu_seconds = all_reduce(torch.cat([state.sums, state.sums.new_tensor([state.cpu_seconds])]))
        self.saved_step, self.saved_at = state.step, time.monotonic()
        if self.writer is None:
            return
        self.writer.submit(self._content(state, sums, cpu_seconds))
        if wait:
            self.writer.flush()

    def _content(self, state: TrainingState, sums: list[float], cpu_seconds: float) -> Any:
        """The checkpoint, of copies that nobody changes any more. sums, cpu_seconds: over all ranks."""
        task, (model, rest) = self.task, self.learner.tensors()
        return Checkpoint(
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

    def take_best(self, state: TrainingState) -> None:
        """Make the network that of the best epoch, if another than the last is chosen. Called by all ranks, at the end.

        RuntimeError: its checkpoint cannot be read.
        """
        best = chosen(state.rows, self.task.run.recipe.selection)
        if best.step == state.step:
            return
        found = None
        if self.writer is not None:
            self.writer.flush()
            try:
                found = self.checkpoints.read(self.checkpoints.name_of(best.step))
            except (OSError, ValueError) as error:
                raise RuntimeError(f"the checkpoint of the best epoch, step {best.step}, is gone: {error}") from None
        self.learner.take(found.model if found else None)

    def require_finite(self, state: TrainingState) -> None:
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

    def close(self, tell: Callable[[], None] = lambda: None) -> None:
        """Wait for the last checkpoint. CannotSave: it could not be written for as long as the run waits.

        tell: posts the status, while the wait goes on.
        """
        if self.writer is None:
            return
        patience = 60 * self.task.run.checkpoints.wait_minutes
        self.writer.close(patience, tell)
        if self.writer.trouble:
            good = self.writer.written or next(reversed(self.checkpoints.names()), "none")
            raise CannotSave(
                f"{self.writer.trouble}; waited {patience / 60:g} minutes (checkpoints.wait_minutes), the last good "
                f"checkpoint is {good}; when that can be, the same command goes on from there"
            )
