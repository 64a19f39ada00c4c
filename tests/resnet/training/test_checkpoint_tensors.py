"""A training goes on bit for bit from its tensors, with an average of the weights and a loss scale."""

import pytest
import torch
from torch import nn

from resnet import build
from resnet.recipes.recipe_settings import Optim
from resnet.training.checkpoint_tensors import restore_state, state_tensors
from resnet.training.optimizer import optimizer
from resnet.training.step import scaler, train_step
from resnet.training.weight_average import Average

CPU = torch.device("cpu")


def test_state_goes_on_bit_for_bit_with_average_and_loss_scale() -> None:
    torch.manual_seed(0)
    batches = [(torch.randn(4, 3, 32, 32), torch.randint(0, 3, (4,))) for _ in range(4)]

    def start() -> tuple[nn.Module, torch.optim.Optimizer, Average, torch.amp.grad_scaler.GradScaler]:
        torch.manual_seed(1)
        network = build("cifar10-resnet8", 3)
        return network, optimizer(network, Optim(lr=0.01)), Average(network), scaler(CPU, "float16")

    def train(parts: tuple, chosen: list) -> None:
        network, optim, average, scale = parts
        for pixels, labels in chosen:
            train_step(network, optim, pixels, labels, "float16", scaler=scale)
            average.update(0.9)

    whole, first, second = start(), start(), start()
    train(whole, batches)
    train(first, batches[:2])
    model, rest = state_tensors(*first)
    restore_state(model, rest, *second)
    train(second, batches[2:])
    for a, b in zip(state_tensors(*whole), state_tensors(*second), strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_checkpoint_without_an_average_is_refused_where_one_is_needed() -> None:
    network = build("cifar10-resnet8", 3)
    optim = optimizer(network, Optim())
    with pytest.raises(ValueError, match="must hold an average of the weights"):
        restore_state(*state_tensors(network, optim), network, optim, Average(network))


def test_a_checkpoint_without_a_loss_scale_is_refused_where_one_is_needed() -> None:
    network = nn.Linear(2, 2)
    optim = optimizer(network, Optim())
    with pytest.raises(ValueError, match="must hold a loss scale, it was written by a training without"):
        restore_state(*state_tensors(network, optim), network, optim, scaler=scaler(CPU, "float16"))


def test_with_an_average_that_is_the_model_and_the_weights_lie_beside_the_momentum() -> None:
    network = nn.Linear(2, 2)
    average = Average(network)
    with torch.no_grad():
        network.weight.fill_(7)
    model, rest = state_tensors(network, optimizer(network, Optim()), average)
    assert model["weight"] is average.tensors["weight"]
    assert (rest["weights.weight"] == 7).all()
    assert not (model["weight"] == 7).any()
