"""Batch norm's mean and variance as a true average over training examples, after the training.

The authors computed them so "on a sufficiently large training batch" instead of by a moving average (README of
KaimingHe/deep-residual-networks). Weights do not change; validation error moves by less than 0.1 %.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from resnet.training.finetuning.trained_parts import FrozenBatchNorm
from resnet.training.step import autocast

Layers = list[nn.BatchNorm2d]


def batch_norm_layers(network: nn.Module) -> Layers:
    """The batch norms whose statistics are of the training, in the order of the modules."""
    found = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.running_mean is not None]
    return [m for m in found if not isinstance(m, FrozenBatchNorm)]


@torch.no_grad()
def statistics(network: nn.Module, batches: Iterable[Tensor], precision: str = "float32") -> Tensor:
    """Sums over examples, (1 + 2 C,) float64: examples, then of each layer means and variances of its batches.

    batches: pixels (N, 3, H, W), normalised, augmented as in training. Sums of several ranks add up: all-reduce them,
    then `set_statistics` on all. Variances are unbiased and inside a batch, as in training. The network's own
    statistics are as before when this returns.
    """
    found = batch_norm_layers(network)
    sums = torch.zeros(1 + 2 * sum(m.num_features for m in found), dtype=torch.float64, device=_device(network))
    with _batch_statistics(network, found):
        for pixels in batches:
            with autocast(pixels.device, precision):
                network(pixels)
            parts = [tensor.double() for m in found for tensor in _buffers(m)]
            sums += len(pixels) * torch.cat([torch.ones_like(sums[:1]), *parts])
    return sums


@torch.no_grad()
def set_statistics(network: nn.Module, sums: Tensor) -> None:
    """Put the averages into the network. sums: of `statistics`, over all ranks. ValueError: of no example."""
    if not sums[0] > 0:
        raise ValueError("batch norm's statistics need at least one training example, got none")
    averages, start = sums[1:] / sums[0], 0
    for layer in batch_norm_layers(network):
        for buffer in _buffers(layer):
            buffer.copy_(averages[start : start + len(buffer)])
            start += len(buffer)


def _buffers(layer: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return layer.running_mean, layer.running_var


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


@contextmanager
def _batch_statistics(network: nn.Module, found: Layers) -> Iterator[None]:
    """Within, each pass leaves its own batch's statistics in the running ones; after it, all is as it was."""
    training = network.training
    before = [(m.momentum, [b.clone() for b in m.buffers()]) for m in found]
    for m in found:
        m.momentum = 1.0  # torch: running = (1 - momentum) running + momentum batch
    network.train()
    try:
        yield
    finally:
        network.train(training)
        for m, (momentum, buffers) in zip(found, before, strict=True):
            m.momentum = momentum
            for buffer, own in zip(m.buffers(), buffers, strict=True):
                buffer.copy_(own)
