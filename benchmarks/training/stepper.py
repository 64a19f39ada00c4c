"""A step of a lane and how it gets onto the device: as it is on a CPU, replayed on a stream of its own on a GPU.

The draws of a whole epoch lie on the device; a step is a captured step of the engine, tried as the engine tries it.
"""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.training.cifar import CLASSES
from benchmarks.training.resident import Plan, Resident
from resnet import build
from resnet.recipes.recipe import Recipe
from resnet.training.devices.captured_step import CapturedStep, CudaGraph
from resnet.training.devices.compiled_blocks import compile_blocks
from resnet.training.devices.step_trial import TRIAL, changed_by_steps, trial_of_steps
from resnet.training.finite_loss import no_bad_step, see_
from resnet.training.optimizer import begin_with_no_momentum, optimizer, set_lr
from resnet.training.step import accumulate, native_precision, to_device, update
from resnet.training.weight_average import Average, decay_at

AHEAD = 40  # steps that wait on a stream; the host has their time for everything else
Look = Callable[[nn.Module, Tensor], None]


@dataclass(frozen=True)
class Options:
    """Options of a lane; nothing here changes what is trained but `precision` and, in the last bits, `compiled`."""

    device: torch.device
    precision: str = "auto"
    compiled: bool = False
    evaluate_every: int = 10  # epochs; the last is always evaluated
    save_every: float = 30.0  # seconds
    backend: str = "inductor"  # of torch.compile

    @property
    def is_cuda(self) -> bool:
        """True if there are streams and graphs."""
        return self.device.type == "cuda"


class Stepper:
    """Network, optimiser and average of a recipe, and the buffers on the device that a step reads and writes."""

    def __init__(self, recipe: Recipe, seed: int, resident: Resident, options: Options) -> None:
        self.recipe, self.resident, self.options = recipe, resident, options
        device = options.device
        self.precision = native_precision(device) if options.precision == "auto" else options.precision
        torch.manual_seed(seed)
        self.network = build(recipe.network, len(CLASSES), zero_init_last_bn=recipe.zero_init_last_bn)
        to_device(self.network, device)
        self.optimizer = optimizer(self.network, recipe.optim)
        self.average = Average(self.network) if recipe.ema is not None else None
        self.normalize = resident.normalize(recipe.images.mean == "per-pixel")
        if options.compiled:
            compile_blocks(self.network, options.backend)
        self.crops = resident.crops(recipe.images.pad or 0)
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        self.bad = no_bad_step(device)
        self.draws = torch.zeros((0, 0, 5), dtype=torch.int64, device=device)
        self.lrs: list[float] = []
        self.shares: list[float] = []
        self.next = 0
        self.stream = torch.cuda.Stream(device) if options.is_cuda else None
        self.captured: CapturedStep | None = None
        self.waiting: deque[torch.cuda.Event] = deque()

    def load(self, plan: Plan, lrs: list[float], first_of_all: int, first: int) -> None:
        """Lay an epoch on the device. first_of_all: its first step in the training; first: step of it to begin at."""
        decay = self.recipe.ema
        steps = range(first_of_all, first_of_all + len(lrs))
        self.lrs, self.next = lrs, first
        self.shares = [0.0 if decay is None else 1 - decay_at(step, decay) for step in steps]
        if self.stream is not None:  # weights and images were made, or put back, on the default stream
            self.stream.wait_stream(torch.cuda.current_stream(self.options.device))
        with self.on_stream():
            self.draws = torch.from_numpy(table(plan)).to(self.options.device)

    def batch(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Augmented and normalised pixels (B, 3, S, S) and labels of one step of a plan."""
        images, labels = self.crops.batch(draws)
        return self.normalize(images), labels

    def _step(self, draws: Tensor, lr: float, share: float, look: Look | None = None) -> Tensor:
        set_lr(self.optimizer, lr)
        return self._by_draws(draws, share, look)

    def _by_draws(self, draws: Tensor, share: float | Tensor, look: Look | None = None) -> Tensor:
        """Gather, augment, train; (3,) sums. Without a look the host is asked nothing.

        look: called before the update with the network, which has its gradients, and the sums of the step.
        """
        pixels, labels = self.batch(draws)
        group = self.recipe.bn_batch or len(labels)
        sums = torch.zeros_like(self.sums)
        for x, y in zip(pixels.split(group), labels.split(group), strict=True):
            given = (x, y, group / len(labels), self.precision, self.recipe.loss.label_smoothing)
            sums += accumulate(self.network, *given)
        if look is not None:
            look(self.network, sums)
        update(self.optimizer)
        if self.average is not None:
            self.average.move(share)
        return sums

    def capture(self) -> None:
        """Replay steps from here on, if a trial with the loaded epoch shows that they are the same. On a GPU."""
        if not self.optimizer.state:
            begin_with_no_momentum(self.optimizer)
        peak, state = self.recipe.optim.peak_lr, changed_by_steps(self.network, self.optimizer, self.average)
        with self.on_stream():
            captured = CapturedStep(self._by_draws, self.optimizer, self.draws[0], CudaGraph(self.options.device))

            def plain(number: int) -> Tensor:
                return self._step(self.draws[number], TRIAL[number][1] * peak, 0.1 * (1 + number))

            def replayed(number: int) -> Tensor:
                return captured(self.draws[number], TRIAL[number][1] * peak, 0.1 * (1 + number))

            why = trial_of_steps(captured.record, plain, replayed, state, min(len(TRIAL), len(self.draws)))
            self.optimizer.zero_grad(set_to_none=True)
        self.captured = captured if why is None else None
        if why is not None:
            print(f"{self.recipe.name}: the steps are not captured: {why}", file=sys.stderr)

    def enqueue(self, look: Look | None = None) -> None:
        """Give the device the next step of the epoch. look: as `_by_draws` has it; such a step is no replay."""
        given = self.draws[self.next], self.lrs[self.next], self.shares[self.next]
        with self.on_stream():
            sums = self._step(*given, look) if self.captured is None or look is not None else self.captured(*given)
            self.sums += sums
            see_(self.bad, sums, self.next)
        self.next += 1
        self._mark()

    def _mark(self) -> None:
        if self.stream is not None:
            event = torch.cuda.Event()
            event.record(self.stream)
            self.waiting.append(event)

    def until(self, ahead: int) -> Iterator[bool]:
        """Yield False until at most `ahead` steps wait on the stream."""
        while len(self.waiting) > ahead:
            if self.waiting[0].query():
                self.waiting.popleft()
            else:
                yield False

    def drained(self) -> Iterator[bool]:
        """Yield until the device has done all that it was given."""
        self._mark()
        yield from self.until(0)

    def on_stream(self) -> contextlib.AbstractContextManager[Any]:
        """Within, what is given to the device comes after all that it was given before."""
        return contextlib.nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def synchronize(self) -> None:
        """Wait for the device, and forget what was waited for."""
        if self.stream is not None:
            self.stream.synchronize()
        self.waiting.clear()


def table(plan: Plan) -> np.ndarray:
    """(steps, batch, 5) int64: place, top, left, mirrored, no quarter turns."""
    return np.stack([plan.image, plan.top, plan.left, plan.flip, np.zeros_like(plan.image)], axis=-1).astype(np.int64)
