"""Norms of gradients and weights, layer by layer: whether they are healthy (section 4.1) is recorded, not assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet.frozen import Frozen

if TYPE_CHECKING:
    from torch import nn

STEPS = (0, 100, 1_000)  # and the last: steps whose gradients are looked at before the update


class LayerNorms(Frozen):
    """A step of a training, before its update. loss: of its batch, over all workers.

    layers: name of a convolution or the classifier -> Euclidean norms of its gradient and of its weights.
    """

    step: int
    loss: float
    layers: dict[str, tuple[float, float]]


def is_watched(step: int, total: int) -> bool:
    """True if the norms of a step are recorded. total: steps of the training."""
    return step in STEPS or step == total - 1


def layer_norms(network: nn.Module, scale: float = 1.0) -> dict[str, tuple[float, float]]:
    """Norms of gradient and weight of every convolution and of the classifier, from input to output.

    scale: what the loss was multiplied by before the backward pass. A layer without a gradient is left out.
    """
    import torch  # late: rows of results are read without it

    found = {}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and module.weight.grad is not None:
            gradient = float(torch.linalg.vector_norm(module.weight.grad.detach())) / scale
            found[name] = (_short(gradient), _short(float(torch.linalg.vector_norm(module.weight.detach()))))
    return found


def _short(value: float) -> float:
    """Four digits: a row of 1202 layers stays readable."""
    return float(f"{value:.4g}")
