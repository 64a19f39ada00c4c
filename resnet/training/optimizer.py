"""Parameter groups, the optimiser, and the learning rate as a pure function of the step."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from resnet.recipes.recipe_settings import Optim


def parameter_groups(model: nn.Module, optim: Optim, head_lr: float = 1.0) -> list[dict[str, object]]:
    """Parameters that are trained, by weight decay and lr. The 2015 recipe decays all of them.

    head_lr: lr of the classifier in multiples of the others'; a group's multiple is its lr_factor.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        factor = head_lr if name.startswith("fc.") else 1.0
        # batch norm's gamma and beta, and biases, are vectors
        decay = optim.weight_decay if optim.decay_norm_and_bias or parameter.ndim > 1 else 0.0
        groups.setdefault((factor, decay), []).append(parameter)
    return [{"params": own, "weight_decay": d, "lr_factor": f} for (f, d), own in groups.items()]


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of a step, for each group by its factor."""
    for group, own in zip(optimizer.param_groups, group_lrs(optimizer, lr), strict=True):
        group["lr"] = own


def group_lrs(optimizer: torch.optim.Optimizer, lr: float) -> list[float]:
    """The learning rate of each group, as float32 has it.

    A captured step reads it from its device in float32. On CPUs the optimiser's kernel rounds it so too; that of CUDA
    would multiply in float64, and a step would differ from its replay.
    """
    return [float(np.float32(lr * group.get("lr_factor", 1.0))) for group in optimizer.param_groups]


def optimizer(model: nn.Module, optim: Optim, head_lr: float = 1.0) -> torch.optim.SGD:
    """SGD with momentum. torch keeps lr outside the velocity, the authors' v := m v + lr g kept it inside.

    One kernel updates all parameters, on CUDA and on CPUs: there 1 to 20 % of a step of a CIFAR network. It trusts
    without a check that a gradient lies in memory as its parameter does; a test of the engine holds that under DDP.
    """
    groups = parameter_groups(model, optim, head_lr)
    return torch.optim.SGD(groups, lr=optim.peak_lr, momentum=optim.momentum, nesterov=optim.nesterov, fused=True)


def begin_with_no_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Set the momentum to zero before the first step, for training with a loss scale.

    Fused SGD makes its buffers without a value in its first step. Where that step is skipped because a gradient
    overflowed, which is how a loss scale finds its size, the next one would go on with what was in that memory.
    """
    for group in optimizer.param_groups:
        for p in group["params"]:
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.preserve_format)
