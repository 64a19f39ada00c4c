"""All that a training needs to go on, as tensors by name: weights, momentum, average, loss scale.

`model` is what is evaluated and served. With an average that is the average, and the weights that training goes on with
lie beside the momentum, as weights.<name>.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from resnet.training.checkpoint import optimizer_tensors, restore_optimizer
from resnet.training.weight_average import Average, copy_into

WEIGHTS, SCALER = "weights.", "scaler."


def state_tensors(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average | None = None,
    scaler: GradScaler | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(model, optimizer) for a Checkpoint. The tensors are those in use: copy them before the next step."""
    weights, rest = network.state_dict(), optimizer_tensors(network, optimizer)
    if scaler is not None and scaler.is_enabled():
        scale = scaler.state_dict()
        rest[SCALER + "scale"] = torch.tensor(scale["scale"], dtype=torch.float64)
        rest[SCALER + "growth_tracker"] = torch.tensor(scale["_growth_tracker"])
    if average is None:
        return weights, rest
    return dict(average.tensors), rest | {WEIGHTS + name: tensor for name, tensor in weights.items()}


def restore_state(
    model: Mapping[str, Tensor],
    rest: Mapping[str, Tensor],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average | None = None,
    scaler: GradScaler | None = None,
) -> None:
    """Put everything back, in place. ValueError: the checkpoint is of a training without an average or loss scale."""
    if average is not None:
        _require(any(name.startswith(WEIGHTS) for name in rest), "an average of the weights")
        average.restore(model)
        model = {name.removeprefix(WEIGHTS): t for name, t in rest.items() if name.startswith(WEIGHTS)}
    copy_into(network, model)
    restore_optimizer(network, optimizer, rest)
    if scaler is not None and scaler.is_enabled():
        _require(SCALER + "scale" in rest, "a loss scale")
        scale = {"scale": rest[SCALER + "scale"].item(), "_growth_tracker": int(rest[SCALER + "growth_tracker"])}
        scaler.load_state_dict(scaler.state_dict() | scale)


def _require(present: bool, what: str) -> None:
    if not present:
        raise ValueError(f"the checkpoint must hold {what}, it was written by a training without")
