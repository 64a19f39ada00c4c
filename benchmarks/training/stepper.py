"""A step of a lane and how it gets onto the device: eagerly on a CPU, as CUDA graphs on a stream of its own on a GPU.

On CUDA a step has no host in it. The plan of a whole epoch (which image, which crop, which lr) lies on the device, a
cursor says which step of it is next, and several steps are one graph.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.training.cifar import CLASSES
from benchmarks.training.resident import Plan, Resident
from resnet import build
from resnet.recipes.recipe import Recipe
from resnet.training.devices.compiled_blocks import compile_blocks
from resnet.training.devices.resident_crops import mirrored_crops
from resnet.training.finite_loss import no_bad_step, see_
from resnet.training.optimizer import optimizer
from resnet.training.step import accumulate, native_precision, to_device, update
from resnet.training.weight_average import Average, decay_at

STEPS_A_GRAPH = 10
GRAPHS_AHEAD = 4  # graphs that wait on a stream; the host has their time for everything else
WARM_UP = 4  # steps before a capture: cuDNN chooses its algorithms, the optimiser makes its buffers


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

    def __init__(self, recipe: Recipe, seed: int, resident: Resident, options: Options, steps_per_epoch: int) -> None:
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
        self.padded = resident.padded(recipe.images.pad or 0)
        shape = (steps_per_epoch, recipe.optim.batch_size)
        kinds = (torch.int64, torch.int64, torch.int64, torch.bool)
        self.plan = [torch.zeros(shape, dtype=kind, device=device) for kind in kinds]
        self.lrs, self.decays = (torch.zeros(steps_per_epoch, device=device) for _ in range(2))
        self.lr = torch.zeros((), device=device)
        self.cursor = torch.zeros(1, dtype=torch.int64, device=device)
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        self.bad = no_bad_step(device)
        self.lr_list: list[float] = []
        self.decay_list: list[float] = []
        self.stream = torch.cuda.Stream(device) if options.is_cuda else None
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.waiting: deque[torch.cuda.Event] = deque()

    def load(self, plan: Plan, lrs: list[float], first_of_all: int, first: int) -> None:
        """Lay an epoch on the device. first_of_all: its first step in the training; first: step of it to begin at."""
        self.lr_list = lrs
        self.decay_list = [decay_at(first_of_all + i, self.recipe.ema or 0.0) for i in range(len(lrs))]
        with self.on_stream():
            for buffer, part in zip(self.plan, plan, strict=True):
                self._send(buffer, torch.from_numpy(part))
            self._send(self.lrs, torch.tensor(self.lr_list))
            self._send(self.decays, torch.tensor(self.decay_list))
            self.cursor.fill_(first)

    def _send(self, buffer: Tensor, source: Tensor) -> None:
        if self.options.is_cuda:
            source = source.pin_memory()  # torch keeps pinned memory until its copy is done
        buffer.copy_(source, non_blocking=True)

    def batch(self, index: Tensor, top: Tensor, left: Tensor, flip: Tensor) -> Tensor:
        """Augmented and normalised pixels (B, 3, S, S) of one step of a plan."""
        return self.normalize(mirrored_crops(self.padded, index, top, left, flip, self.recipe.images.size))

    def _one_step(self, look: Callable[[nn.Module, Tensor], None] | None = None) -> None:
        """Gather, augment, train. On CUDA without any word from the host, so that it can be captured.

        look: called before the update with the network, which has its gradients, and the sums of the step.
        """
        part = [part.index_select(0, self.cursor)[0] for part in self.plan]
        pixels, labels = self.batch(*part), self.resident.labels[part[0]]
        if self.options.is_cuda:
            self.lr.copy_(self.lrs.index_select(0, self.cursor)[0])
            decay = self.decays.index_select(0, self.cursor)[0]
        else:  # the numbers themselves, as in the engine
            self._set_lr(self.lr_list[int(self.cursor)])
            decay = self.decay_list[int(self.cursor)]
        group = self.recipe.bn_batch or len(labels)
        sums = torch.zeros_like(self.sums)
        for x, y in zip(pixels.split(group), labels.split(group), strict=True):
            given = (x, y, group / len(labels), self.precision, self.recipe.loss.label_smoothing)
            sums += accumulate(self.network, *given)
        if look is not None:
            look(self.network, sums)
        update(self.optimizer)
        if self.average is not None:
            self.average.update(decay)
        self.sums += sums
        see_(self.bad, sums, self.cursor[0])
        self.cursor += 1

    def _set_lr(self, lr: float | Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def capture(self) -> None:
        """Capture graphs of one step and of several. Weights, momentum and counters are afterwards as they were."""
        assert self.stream is not None
        self._set_lr(self.lr)
        for parameter in self.network.parameters():  # a first step without momentum would be captured as such
            state = self.optimizer.state[parameter]
            state.setdefault("momentum_buffer", torch.zeros_like(parameter, memory_format=torch.preserve_format))
        kept = [tensor.clone() for tensor in self._mutable()]
        self.stream.wait_stream(torch.cuda.current_stream(self.options.device))
        with torch.cuda.stream(self.stream):
            for _ in range(WARM_UP):
                self.cursor.zero_()
                self._one_step()
        self.stream.synchronize()
        pool = torch.cuda.graph_pool_handle()
        for steps in (STEPS_A_GRAPH, 1):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=self.stream):
                for _ in range(steps):
                    self._one_step()
            self.graphs[steps] = graph
        with torch.cuda.stream(self.stream):
            for tensor, old in zip(self._mutable(), kept, strict=True):
                tensor.copy_(old)
        self.stream.synchronize()

    def _mutable(self) -> list[Tensor]:
        """All that a step changes."""
        momentum = [self.optimizer.state[p]["momentum_buffer"] for p in self.network.parameters()]
        averages = list(self.average.tensors.values()) if self.average else []
        own = [tensor.detach() for tensor in self.network.state_dict().values()]
        return [*own, *momentum, *averages, self.cursor, self.sums, self.bad]

    def enqueue(self, most: int, look: Callable[[nn.Module, Tensor], None] | None = None) -> int:
        """Give the device one or several steps, at most `most`; how many. look: of the first one, on a CPU."""
        if self.stream is None:
            self._one_step(look)
            return 1
        steps = STEPS_A_GRAPH if most >= STEPS_A_GRAPH else 1
        with torch.cuda.stream(self.stream):
            self.graphs[steps].replay()
        self._mark()
        return steps

    def _mark(self) -> None:
        assert self.stream is not None
        event = torch.cuda.Event()
        event.record(self.stream)
        self.waiting.append(event)

    def until(self, ahead: int) -> Iterator[bool]:
        """Yield False until at most `ahead` graphs wait on the stream."""
        while len(self.waiting) > ahead:
            if self.waiting[0].query():
                self.waiting.popleft()
            else:
                yield False

    def drained(self) -> Iterator[bool]:
        """Yield until the device has done all that it was given."""
        if self.stream is not None:
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
