"""A network on a GPU as CUDA graphs, one for each batch size of 1, 2, 4, ...: a replay is one launch, not hundreds.

At small batches a ResNet's kernels take less time than Python needs to launch them. A batch is filled up to the next
size; what fills it is computed and thrown away.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
Outputs = tuple[Tensor, Tensor]
LARGEST = 64  # above it the kernels are long enough: no graph


def captured(network: Forward, images: Tensor) -> tuple[Callable[[], None], Outputs]:
    """A CUDA graph of one pass over `images`, which stay where they are: how to run it, and where the outputs are."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # cuDNN chooses its algorithms and takes its memory before the capture
        for _ in range(3):
            network(images)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = network(images)
    return graph.replay, outputs


class Graphs:
    """Called as the network is. A size is captured when it is first asked for; one caller at a time."""

    def __init__(self, network: Forward, capture: Callable[..., tuple[Callable[[], None], Outputs]] = captured) -> None:
        self._network, self._capture = network, capture
        self._graphs: dict[tuple[int, torch.dtype], tuple[Tensor, Callable[[], None], Outputs]] = {}

    def __call__(self, images: Tensor) -> Outputs:
        """images: (N, S, S, 3), on the device. Probabilities (N, K), pooled features (N, C)."""
        count = len(images)
        if count > LARGEST:
            return self._network(images)
        place = 1 << (count - 1).bit_length(), images.dtype
        if place not in self._graphs:
            still = torch.zeros((place[0], *images.shape[1:]), dtype=images.dtype, device=images.device)
            self._graphs[place] = (still, *self._capture(self._network, still))
        still, replay, outputs = self._graphs[place]
        still[:count].copy_(images, non_blocking=True)
        replay()
        return outputs[0][:count], outputs[1][:count]
