"""Graphs of a step without a GPU: closures over the memory that a CUDA graph would have, right ones and wrong ones."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from resnet.training.devices.captured_step import CapturedStep

Tensors = Callable[[CapturedStep], list[Tensor]]


class Recorded:
    """Does the recorded work over the same memory, as a CUDA graph does: all that changes is in its tensors."""

    step: CapturedStep

    def __init__(self) -> None:
        self.replays = 0

    def record(self, work: Callable[[], None]) -> None:
        """As CUDA's: the work is done some times before."""
        self.work: Any = work
        self.step = self.work.__self__
        for _ in range(3):
            work()

    def replay(self) -> None:
        """The work once more."""
        self.replays += 1
        self.work()


class Stale(Recorded):
    """Reads some tensors as they were at its first replay, whatever is written there later."""

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        self._tensors = tensors
        self._first: list[Tensor] = []

    def replay(self) -> None:
        self._first = self._first or [tensor.clone() for tensor in self._tensors(self.step)]
        for tensor, first in zip(self._tensors(self.step), self._first, strict=True):
            tensor.copy_(first)
        super().replay()


class Forgetful(Recorded):
    """Leaves some tensors as they are, which the work should change."""

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        self._tensors = tensors

    def replay(self) -> None:
        kept = [tensor.detach().clone() for tensor in self._tensors(self.step)]
        super().replay()
        for tensor, own in zip(self._tensors(self.step), kept, strict=True):
            tensor.detach().copy_(own)


class Failing(Recorded):
    """Cannot record a step that asks the device for something, and has done it once."""

    def record(self, work: Callable[[], None]) -> None:
        work()
        raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")
