"""A whole training step as one CUDA graph: recorded once, replayed over memory that stays where it is.

The kernels of a small network take less time than Python needs to launch them; a replay is one launch. What differs
from step to step lies on the device, is written there and read by the graph: the draws of the images, the lr, and the
share of the weights in their average. All that Python decides is recorded as it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from resnet.training.optimizer import group_lrs

WARM_UP = 3  # steps before the recording: cuDNN chooses its algorithms, and libraries take their memory


class StepGraph(Protocol):
    """Work that a device records once and does again over the same memory: CudaGraph."""

    def record(self, work: Callable[[], None]) -> None:
        """Record it. The work may also be done some times before: its caller puts back what that changes."""
        ...

    def replay(self) -> None:
        """Do what was recorded. Nothing here waits for the device."""
        ...


class CudaGraph:
    """torch.cuda.CUDAGraph, recorded on a stream of its own. A replay comes after all that the current stream has."""

    def __init__(self, device: torch.device) -> None:
        self._graph, self._stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)

    def record(self, work: Callable[[], None]) -> None:
        """Record the work, after WARM_UP times on the same stream: handles of libraries are made there, not inside."""
        computing = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(computing)
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                work()
        computing.wait_stream(self._stream)
        # By default a recording fails where any other thread of the process asks CUDA for memory or waits for it.
        with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
            work()

    def replay(self) -> None:
        """Do it once more."""
        self._graph.replay()


class CapturedStep:
    """A training step that is replayed. Called with the draws of a batch, its lr, and the share of the average.

    work: the step by draws and share, both on the device; (3,) float64 sums. It asks nothing of the device, and all
    that it reads and changes stays where it is. draws: (N, 5) int64 on the device, of any batch: its shape is kept.
    """

    def __init__(
        self,
        work: Callable[[Tensor, Tensor], Tensor],
        optimizer: torch.optim.Optimizer,
        draws: Tensor,
        graph: StepGraph,
    ) -> None:
        self._work, self._optimizer, self._graph = work, optimizer, graph
        self.draws = draws.clone()
        # The fused optimiser's kernel reads float32.
        self.lrs = [torch.zeros((), device=draws.device) for _ in optimizer.param_groups]
        self.share = torch.zeros((), device=draws.device)
        self.sums = torch.zeros(3, dtype=torch.float64, device=draws.device)

    def record(self) -> None:
        """Record it. Weights and all else that the work changes are afterwards to be put back."""
        self._graph.record(self._once)

    def __call__(self, draws: Tensor, lr: float, share: float) -> Tensor:
        """(3,) sums of the step: loss, top-1 errors, examples."""
        self.draws.copy_(draws)
        for own, value in zip(self.lrs, group_lrs(self._optimizer, lr), strict=True):
            own.fill_(value)
        self.share.fill_(share)
        self._graph.replay()
        return self.sums.clone()  # the next replay writes them anew

    def _once(self) -> None:
        with self._lrs_on_the_device():
            self.sums.copy_(self._work(self.draws, self.share))

    @contextlib.contextmanager
    def _lrs_on_the_device(self) -> Iterator[None]:
        groups = self._optimizer.param_groups
        before = [group["lr"] for group in groups]
        for group, own in zip(groups, self.lrs, strict=True):
            group["lr"] = own
        try:
            yield
        finally:
            for group, value in zip(groups, before, strict=True):
                group["lr"] = value
