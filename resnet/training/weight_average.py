"""The exponential moving average of a network's weights and batch norm statistics, which is evaluated and kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from resnet.training.torch_internals import copy_all, move_towards


def decay_at(step: int, decay: float) -> float:
    """Decay after a step, counted from 0. It rises at first, so that the initial weights are soon forgotten."""
    return min(decay, (1 + step) / (10 + step))


class Average:
    """a := d a + (1 - d) w after each step. Begins with the network's weights; integers are copied.

    The network is on its device already: what is followed is the memory that its weights have now.
    """

    def __init__(self, network: nn.Module) -> None:
        followed = {name: tensor.detach() for name, tensor in network.state_dict().items()}
        self.tensors = {name: tensor.clone() for name, tensor in followed.items()}
        # Listed once: on a GPU the look-ups of 320 names in each step would take as long as the launches of a stage.
        names = [[name for name in followed if followed[name].is_floating_point() == kind] for kind in (True, False)]
        self._floats, self._integers = (
            ([self.tensors[name] for name in some], [followed[name] for name in some]) for some in names
        )

    def update(self, decay: float) -> None:
        """After a step of the optimiser. decay: decay_at(step, recipe.ema)."""
        self.move(1 - decay)

    @torch.no_grad()
    def move(self, share: float | Tensor) -> None:
        """Go this share of the way to the weights. share: 1 - decay, or a float32 tensor () of it on the device."""
        move_towards(*self._floats, share)
        copy_all(*self._integers)

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Within, the network has the averaged weights; after it, its own again, to the last bit."""
        own = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        copy_into(network, self.tensors)
        try:
            yield
        finally:
            copy_into(network, own)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from an average that was saved."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])


@torch.no_grad()
def copy_into(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Set weights and statistics in place: addresses stay, which captured CUDA graphs and DDP rely on."""
    for name, tensor in network.state_dict().items():
        tensor.copy_(tensors[name])
