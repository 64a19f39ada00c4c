"""Figure 7: standard deviations of layer responses.

A response is the output of a 3x3 convolution after batch normalisation, before ReLU and before the addition. Sums are
kept for each image, so that parts of a data set add up to the same digits whoever computed them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from resnet.evaluation.error_summary import Response
from resnet.networks.resnet import ResNet
from resnet.training.step import Normalize


@dataclass
class Sums:
    """values: numbers that one image has in each layer; parts: (N, layers, 2) sum and sum of squares of each batch."""

    layers: tuple[str, ...]
    values: list[int] = field(default_factory=list)
    parts: list[np.ndarray] = field(default_factory=list)
    _batch: list[Tensor] = field(default_factory=list)

    def add(self, output: Tensor) -> None:
        """Take over one layer's output, (N, C, H, W), while it is there: the ReLU that follows works in place."""
        values = output.detach().flatten(1).double()
        if len(self.values) < len(self.layers):
            self.values.append(values.shape[1])
        self._batch.append(torch.stack([values.sum(1), values.square().sum(1)], 1))
        if len(self._batch) == len(self.layers):
            self.parts.append(torch.stack(self._batch, 1).cpu().numpy())
            self._batch.clear()


def measured_layers(net: ResNet) -> dict[str, nn.Module]:
    """The batch normalisation after each 3x3 convolution, by the convolution's name, from input to output."""
    found: dict[str, nn.Module] = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            found[name] = net.get_submodule(name.replace("conv", "bn"))
    return found


@contextmanager
def watching(net: ResNet) -> Iterator[Sums]:
    """Within `with`: sums of the responses of every image that goes through the network, batch by batch."""
    watched = measured_layers(net)
    sums = Sums(tuple(watched))

    def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sums.add(output)

    handles: list[RemovableHandle] = [module.register_forward_hook(hook) for module in watched.values()]
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()


def deviations(names: Sequence[str], values: Sequence[int], sums: np.ndarray) -> tuple[Response, ...]:
    """Standard deviations. values: (layers,) numbers an image; sums: (N, layers, 2) sum and sum of squares an image."""
    counts = np.asarray(values, dtype=np.float64) * len(sums)
    mean, square = (sums.sum(0) / counts[:, None]).T
    stds = np.sqrt(np.maximum(square - mean**2, 0))
    return tuple(Response(layer=name, std=float(std)) for name, std in zip(names, stds, strict=True))


@torch.inference_mode()
def layer_responses(net: ResNet, normalize: Normalize, batches: Sequence[Tensor]) -> tuple[Response, ...]:
    """Responses of a network to uint8 images, (N, H, W, 3) each batch, on the network's device, in float32."""
    with watching(net.eval()) as sums:
        for images in batches:
            net(normalize(images))
    return deviations(sums.layers, sums.values, np.concatenate(sums.parts))


def response_std(responses: Sequence[Response]) -> float:
    """One number for a network: the mean of its layers' standard deviations."""
    return float(np.mean([response.std for response in responses]))
