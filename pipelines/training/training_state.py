"""The state of a training on one rank, and sums over all ranks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pipelines.stream.augmentation import Batch
from pipelines.stream.in_memory import Draws
from pipelines.stream.loader_figures import LoaderFigures
from resnet.training.checkpoint import Progress
from resnet.training.conditions import Conditions
from resnet.training.devices.device_wait import DeviceWait
from resnet.training.finite_loss import no_bad_step, see_
from resnet.training.gradient_norms import LayerNorms


class Epoch(NamedTuple):
    """An epoch over all ranks. sums: loss, top-1 errors, examples; replaced: images that could not be decoded;
    seconds, wait: wall time of the training, and that in which the device waited for data; cpu_seconds: of all ranks.
    """

    sums: list[float]
    replaced: float
    seconds: float
    wait: float
    cpu_seconds: float


class TrainingState:
    """State of a run at a step, beside weights and momentum. sums: (3,) of the epoch so far, this rank's own part."""

    def __init__(self, device: torch.device, saved: Progress | None, rank: int) -> None:
        self.step, self.rows, self.lr = 0, (), 0.0
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        self.bad = no_bad_step(device)
        self.seconds = self.wait = self.cpu_seconds = 0.0
        self.conditions: tuple[Conditions, ...] = ()
        self.norms: tuple[LayerNorms, ...] = ()
        self.replaced = 0  # training images of the epoch so far, of this rank, that could not be decoded
        self.loader = LoaderFigures()
        self._since, self._cpu_since = time.monotonic(), time.process_time()
        self._device_wait = DeviceWait.of(device)
        if saved is not None:
            self.step, self.rows, self.seconds, self.wait = saved.step, saved.rows, saved.seconds, saved.wait
            self.conditions, self.norms = saved.conditions, saved.norms
            if rank == 0:  # sums of all ranks come back on one
                self.sums += torch.tensor(saved.sums, dtype=torch.float64, device=device)
                self.cpu_seconds = saved.cpu_seconds

    def note_conditions(self, found: Conditions) -> None:
        """Add what the training runs on from here, where it is not as before."""
        if not (self.conditions and found.is_as(self.conditions[-1])):
            self.conditions = (*self.conditions, found)

    def add(self, sums: Tensor) -> None:
        """Count a step. Nothing here waits for the device."""
        self.sums += sums
        see_(self.bad, sums, self.step)

    def took(self, batch: Batch | Draws) -> None:
        """Count what a batch says of its making."""
        self.replaced += batch.replaced
        self.loader.took(batch)

    def wait_fraction(self) -> float | None:
        """Share of the epoch's time so far in which the device waited for data; None before its first step."""
        seconds = self.seconds + time.monotonic() - self._since
        return min(1.0, self.wait / seconds) if float(self.sums[2]) and seconds else None

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
        """Time within, in which the device had nothing to compute, is time that the training waited for data."""
        with self._device_wait.waiting():
            yield
        self.wait += self._device_wait.taken()

    def close(self) -> Epoch:
        """End an epoch: what it was, over all ranks. All starts anew."""
        counts = torch.tensor([float(self.replaced), self.cpu_seconds], dtype=torch.float64, device=self.sums.device)
        replaced, cpu_seconds = all_reduce(counts)
        sums = all_reduce(self.sums)  # the device has now come to the end of all waits
        self.wait += self._device_wait.taken()
        ended = Epoch(sums, replaced, self.seconds, self.wait, cpu_seconds)
        self.sums.zero_()
        self.seconds = self.wait = self.cpu_seconds = 0.0
        self.replaced = 0
        return ended


def all_reduce(sums: Tensor) -> list[float]:
    """Sums over all ranks."""
    total = sums.clone()
    torch.distributed.all_reduce(total)
    return total.tolist()
