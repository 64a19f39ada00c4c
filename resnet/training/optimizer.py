"""Parameter groups, the optimiser, and the learning rate as a pure function of the step."""

from __future__ import annotations

import torch
from torch import nn

from resnet.recipes.recipe_settings import Optim


def parameter_groups(model: nn.Module, optim: Optim) -> list[dict[str, object]]:
    """Parameters with weight decay, and those without. The 2015 recipe decays all of them."""
    if optim.decay_norm_and_bias:
        return [{"params": list(model.parameters()), "weight_decay": optim.weight_decay}]
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]  # batch norm's gamma and beta, and biases
    return [
        {"params": matrices, "weight_decay": optim.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def optimizer(model: nn.Module, optim: Optim) -> torch.optim.SGD:
    """SGD with momentum. torch keeps lr outside the velocity, the authors' v := m v + lr g kept it inside.

    One kernel updates all parameters, on CUDA and on CPUs: there 1 to 20 % of a step of a CIFAR network. It trusts
    without a check that a gradient lies in memory as its parameter does; a test of the engine holds that under DDP.
    """
    groups = parameter_groups(model, optim)
    return torch.optim.SGD(groups, lr=optim.peak_lr, momentum=optim.momentum, nesterov=optim.nesterov, fused=True)


def begin_with_no_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Set the momentum to zero before the first step, for training with a loss scale.

    Fused SGD makes its buffers without a value in its first step. Where that step is skipped because a gradient
    overflowed, which is how a loss scale finds its size, the next one would go on with what was in that memory.
    """
    for group in optimizer.param_groups:
        for p in group["params"]:
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.preserve_format)
