"""The average is the sum of all past weights by hand, and the network gets its own back bit for bit."""

import pytest
import torch
from torch import nn

from resnet import build
from resnet.training.weight_average import Average, copy_into, decay_at


@pytest.mark.parametrize("share", [0.25, torch.tensor(0.25)])
def test_an_average_is_the_geometric_sum_of_the_weights(share: float | torch.Tensor) -> None:
    network = nn.BatchNorm1d(3)
    average, seen = Average(network), [network.weight.detach().clone()]
    for _ in range(4):
        with torch.no_grad():
            network.weight.copy_(torch.randn(3))
        network.get_buffer("num_batches_tracked").add_(1)
        average.move(share)
        seen.append(network.weight.detach().clone())
    shares = [0.75**4] + [0.25 * 0.75 ** (4 - i) for i in range(1, 5)]
    torch.testing.assert_close(average.tensors["weight"], sum(s * w for s, w in zip(shares, seen, strict=True)))
    assert average.tensors["num_batches_tracked"] == 4


@pytest.mark.parametrize("fallbacks", ["0", "1"])
def test_a_share_on_the_device_moves_as_the_number_does_bit_for_bit(
    fallbacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNET_WITHOUT_INTERNALS", fallbacks)
    torch.manual_seed(0)
    network = nn.BatchNorm1d(37)
    averages = [Average(network) for _ in range(2)]
    share = torch.zeros(())
    for step in range(20):
        with torch.no_grad():
            network.weight.copy_(torch.randn(37))
        averages[0].update(decay_at(step, 0.9))
        averages[1].move(share.fill_(1 - decay_at(step, 0.9)))
        assert torch.equal(averages[0].tensors["weight"], averages[1].tensors["weight"]), step


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


def test_weights_keep_their_addresses() -> None:
    network = nn.Linear(2, 2)
    address = network.weight.data_ptr()
    copy_into(network, {"weight": torch.ones(2, 2), "bias": torch.zeros(2)})
    assert network.weight.data_ptr() == address
    assert network.weight.sum() == 4
