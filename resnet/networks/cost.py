"""Parameters and multiply-adds, counted as the paper counts them.

A multiply-add is one product summed into a convolution or the fully connected layer, for one image: what the paper
calls FLOPs. Projections count. Not counted: biases, batch normalisation, ReLU, pooling, additions (together under 1 %).
Parameters are what is learnt: all weights and biases, with the two per channel of batch normalisation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from resnet.networks.architectures import FAMILIES, parse_network
from resnet.networks.resnet import ResNet


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a network: learnt parameters, and multiply-adds for one image."""

    parameters: int
    multiply_adds: int


@dataclass(frozen=True, slots=True)
class Step:
    """One module of a forward pass: its dotted name, its type, and the shape of what it gave."""

    name: str
    module: nn.Module
    shape: torch.Size


def on_meta(name: str, num_classes: int | None = None) -> ResNet:
    """The network without values in its weights, in evaluation mode."""
    with torch.device("meta"):
        return ResNet(parse_network(name), num_classes).eval()


def trace(net: nn.Module, size: int) -> list[Step]:
    """Every module in the order in which it finishes, for one image of size x size on the device of the weights."""
    steps: list[Step] = []
    with _hooks(net, steps), torch.no_grad():
        net(torch.empty(1, 3, size, size, device=next(net.parameters()).device))
    return steps


@contextmanager
def _hooks(net: nn.Module, steps: list[Step]) -> Iterator[None]:
    """Forward hooks that append to steps; removed at the end."""

    def watch(name: str, module: nn.Module) -> RemovableHandle:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            steps.append(Step(name, module, output.shape))

        return module.register_forward_hook(hook)

    handles = [watch(name, module) for name, module in net.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def multiply_adds(net: nn.Module, size: int) -> int:
    """Products of all convolutions and fully connected layers, for one image of size x size."""
    weighted = ((s.shape.numel(), s.module) for s in trace(net, size))
    return sum(n * m.weight[0].numel() for n, m in weighted if isinstance(m, nn.Conv2d | nn.Linear))


def parameters(net: nn.Module) -> int:
    """Learnt parameters; the running statistics of batch normalisation are none."""
    return sum(parameter.numel() for parameter in net.parameters())


def count(name: str, num_classes: int | None = None, size: int | None = None) -> Cost:
    """The cost of a network by name. size: pixels of the square image, the family's own (224, 32) unless given."""
    net = on_meta(name, num_classes)
    return Cost(parameters(net), multiply_adds(net, size or FAMILIES[net.network.family].image_size))
