"""A network on a GPU as CUDA graphs, one for each batch size of 1, 2, 4, ...: a replay is one launch, not hundreds.

At small batches a ResNet's kernels take less time than Python needs to launch them. A batch is filled up to the next
size; what fills it is computed and thrown away.

While one thread captures a new version's graphs another serves the old one: they take turns (TURN), for a capture sees
each word to the GPU, and both use the process's one stream of captures.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
Outputs = tuple[Tensor, Tensor]
LARGEST = 64  # above it the kernels are long enough: no graph
TURN = threading.RLock()  # held by the thread of this process that talks to the GPU


def captured(network: Forward, images: Tensor, pool: Any) -> tuple[Callable[[], None], Outputs]:
    """A CUDA graph of one pass over `images`, which stay where they are: a call that replays it, and its outputs.

    pool: of memory, torch.cuda.graph_pool_handle(); graphs that share it are replayed one after the other.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # cuDNN chooses its algorithms and takes its memory before the capture
        for _ in range(3):
            network(images)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # By default a capture fails where any other thread of the process asks CUDA for memory or waits for it.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        outputs = network(images)
    return graph.replay, outputs


class Graphs:
    """Called as the network is. A size of bytes is captured when it is first asked for; floats are never captured."""

    def __init__(self, network: Forward, capture: Callable[..., tuple[Callable[[], None], Outputs]] = captured) -> None:
        self._network, self._capture = network, capture
        self._graphs: dict[int, tuple[Tensor, Callable[[], None], Outputs]] = {}
        self._pool: Any = None

    def __call__(self, images: Tensor) -> Outputs:
        """images: (N, S, S, 3), on the device. Probabilities (N, K), pooled features (N, C)."""
        count = len(images)
        if count > LARGEST or images.dtype != torch.uint8:
            return self._network(images)
        size = 1 << (count - 1).bit_length()
        with TURN:
            if size not in self._graphs:
                self._graphs[size] = self._new(images, size)
            still, replay, outputs = self._graphs[size]
            still[:count].copy_(images, non_blocking=True)
            replay()
            return outputs[0][:count], outputs[1][:count]

    def _new(self, images: Tensor, size: int) -> tuple[Tensor, Callable[[], None], Outputs]:
        """A graph of batches of `size`, in the memory of those before it: the largest comes first."""
        if self._pool is None and images.device.type == "cuda":
            self._pool = torch.cuda.graph_pool_handle()
        still = torch.zeros((size, *images.shape[1:]), dtype=images.dtype, device=images.device)
        return (still, *self._capture(self._network, still, self._pool))
