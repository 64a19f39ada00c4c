"""Host memory that batches are decoded into and a GPU copies from directly: page-locked buffers, written in turn.

A batch that was decoded elsewhere is copied into page-locked memory first, 38 MB with 256 images of 224 pixels, and
freshly mapped pages cost a fault for each 4 KiB.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch


class Done(Protocol):
    """The end of a copy that a device makes: torch.cuda.Event."""

    def synchronize(self) -> None:
        """Return when the copy is made."""
        ...


class PinnedRing:
    """Buffers of one shape, uint8. One is written again only when the copy from it, of which it was told, is made.

    count: buffers, more than are decoded or looked at by others at any time; pinned: False where there is no GPU.
    """

    def __init__(self, count: int, shape: tuple[int, ...], pinned: bool = True) -> None:
        made = [torch.empty(shape, dtype=torch.uint8, pin_memory=pinned) for _ in range(count)]
        self._buffers = [buffer.numpy() for buffer in made]
        self._copies: list[Done | None] = [None] * count
        self._next = 0

    def take(self) -> np.ndarray:
        """The buffer that was taken longest ago, to be written."""
        at, self._next = self._next, (self._next + 1) % len(self._buffers)
        copy, self._copies[at] = self._copies[at], None
        if copy is not None:
            copy.synchronize()
        return self._buffers[at]

    def holds(self, array: np.ndarray) -> bool:
        """True if an array is one of the buffers, or begins where it does."""
        return self._place(array) is not None

    def is_copied(self, array: np.ndarray, done: Done) -> None:
        """A device copies from a buffer, until `done`. Another array is none of this ring's concern."""
        if (at := self._place(array)) is not None:
            self._copies[at] = done

    def _place(self, array: np.ndarray) -> int | None:
        begins = [buffer.ctypes.data for buffer in self._buffers]
        return begins.index(array.ctypes.data) if array.ctypes.data in begins else None
