"""A folded ResNet on a CPU by oneDNN's fused convolutions: each adds its bias and its shortcut, and rectifies, as it
writes, and its weights are laid out once.

torch's convolution lays its weights out anew at each call, a third of the time of a lone image through ResNet-50, and
leaves sum and ReLU to passes of their own. The operators here are those that torch.compile ends in on a CPU
(torch.ops.mkldnn); they need no compiler and no warm-up.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from resnet.networks.resnet import BasicBlock, Bottleneck, ResNet


class Convolution:
    """A convolution with a bias; its weights lie as oneDNN wants them for inputs of a shape."""

    def __init__(self, plain: nn.Conv2d, shape: torch.Size) -> None:
        """shape: (N, C, H, W) of an input; another N may follow."""
        self._geometry = (list(plain.padding), list(plain.stride), list(plain.dilation), plain.groups)
        weight, operators = plain.weight.detach(), torch.ops.mkldnn
        weight = operators._reorder_convolution_weight(weight, *self._geometry, list(shape))
        bias = None if plain.bias is None else plain.bias.detach()
        self._given = (weight, bias, *self._geometry)
        self._alone, self._sum = operators._convolution_pointwise.default, operators._convolution_pointwise_.binary

    def __call__(self, x: Tensor, then: str = "relu") -> Tensor:
        """The convolution, then "relu" or "none"."""
        return self._alone(x, *self._given, then, [], "")

    def plus(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """relu(convolution + shortcut), in the memory of the shortcut."""
        return self._sum(shortcut, x, *self._given, "add", 1.0, "relu", [], "")


class FusedBlock:
    """A BasicBlock or a Bottleneck."""

    def __init__(self, plain: BasicBlock | Bottleneck, shapes: dict[nn.Module, torch.Size]) -> None:
        chain = [plain.conv1, plain.conv2, *([plain.conv3] if isinstance(plain, Bottleneck) else [])]
        *self._first, self._last = [Convolution(c, shapes[c]) for c in chain]
        self._shortcut: Any = plain.downsample
        if isinstance(plain.downsample, nn.Sequential):  # a projection, its batch normalisation folded into it
            self._shortcut = Convolution(plain.downsample[0], shapes[plain.downsample[0]])  # pyright: ignore
        self._projects = isinstance(self._shortcut, Convolution)

    def __call__(self, x: Tensor) -> Tensor:
        """As the plain block does; x may be overwritten."""
        y = x
        for convolution in self._first:
            y = convolution(y)
        if self._shortcut is None:
            return self._last(y)
        return self._last.plus(y, self._shortcut(x, "none") if self._projects else self._shortcut(x))


class Fused:
    """The features of a ResNet whose batch normalisation is folded; inference only. AttributeError or RuntimeError
    where torch has no oneDNN, or that not these operators."""

    def __init__(self, plain: ResNet, images: Tensor) -> None:
        """images: (N, 3, S, S), channels_last, as they will come; another N may follow."""
        shapes: dict[nn.Module, torch.Size] = {}
        hooks = [
            module.register_forward_pre_hook(lambda module, given: shapes.update({module: given[0].shape}))
            for module in plain.modules()
            if isinstance(module, nn.Conv2d)
        ]
        plain.features(images)
        for hook in hooks:
            hook.remove()
        self._stem, self._pool = Convolution(plain.conv1, shapes[plain.conv1]), plain.maxpool
        stages: Any = [plain.get_submodule(name) for name in plain.stages]
        self._blocks = [FusedBlock(block, shapes) for block in itertools.chain(*stages)]

    def features(self, x: Tensor) -> Tensor:
        """ResNet.features."""
        x = self._pool(self._stem(x))
        for block in self._blocks:
            x = block(x)
        return x
