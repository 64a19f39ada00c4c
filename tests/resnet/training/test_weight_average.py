"""The average is the sum of all past weights by hand, and the network gets its own back bit for bit."""

import pytest
import torch
from torch import nn

from resnet import build
from resnet.recipes.recipe_settings import Optim
from resnet.training.checkpoint_tensors import restore_state, state_tensors
from resnet.training.optimizer import optimizer
from resnet.training.step import scaler, train_step
from resnet.training.weight_average import Average, copy_into, decay_at

CPU = torch.device("cpu")


@pytest.mark.parametrize("decay", [0.75, torch.tensor(0.75)])
def test_an_average_is_the_geometric_sum_of_the_weights(decay: float | torch.Tensor) -> None:
    network = nn.BatchNorm1d(3)
    average, seen = Average(network), [network.weight.detach().clone()]
    for _ in range(4):
        with torch.no_grad():
            network.weight.copy_(torch.randn(3))
        network.get_buffer("num_batches_tracked").add_(1)
        average.update(network, decay)
        seen.append(network.weight.detach().clone())
    shares = [0.75**4] + [0.25 * 0.75 ** (4 - i) for i in range(1, 5)]
    torch.testing.assert_close(average.tensors["weight"], sum(s * w for s, w in zip(shares, seen, strict=True)))
    assert average.tensors["num_batches_tracked"] == 4


def test_the_decay_rises_to_its_value() -> None:
    decays = [decay_at(step, 0.99) for step in range(2000)]
    assert decays[0] == 0.1
    assert decays == sorted(decays)
    assert decays[-1] == 0.99


def test_applied_is_undone_bit_for_bit() -> None:
    network = build("cifar10-resnet8", 3)
    average = Average(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.1)
    own = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with average.applied(network):
        assert all(torch.equal(t, average.tensors[name]) for name, t in network.state_dict().items())
    assert all(torch.equal(t, own[name]) for name, t in network.state_dict().items())


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
            average.update(network, 0.9)

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


def test_weights_keep_their_addresses() -> None:
    network = nn.Linear(2, 2)
    address = network.weight.data_ptr()
    copy_into(network, {"weight": torch.ones(2, 2), "bias": torch.zeros(2)})
    assert network.weight.data_ptr() == address
    assert network.weight.sum() == 4
