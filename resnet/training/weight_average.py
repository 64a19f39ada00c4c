"""The exponential moving average of a network's weights and batch norm statistics, which is evaluated and kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from resnet.training.torch_internals import move_towards


def decay_at(step: int, decay: float) -> float:
    """Decay after a step, counted from 0. It rises at first, so that the initial weights are soon forgotten."""
    return min(decay, (1 + step) / (10 + step))


class Average:
    """a := d a + (1 - d) w after each step. Begins with the network's weights; integers are copied."""

    def __init__(self, network: nn.Module) -> None:
        self.tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, decay: float | Tensor) -> None:
        """After a step of the optimiser. decay: decay_at(step, recipe.ema), or a tensor () on the device."""
        state = network.state_dict()
        floats = [name for name, tensor in self.tensors.items() if tensor.is_floating_point()]
        averages = [self.tensors[name] for name in floats]
        weights = [state[name] for name in floats]
        move_towards(averages, weights, 1 - decay)
        for name in self.tensors.keys() - floats:
            self.tensors[name].copy_(state[name])

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
