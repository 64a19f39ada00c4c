"""Exact statistics of batch norm are averages over examples, and change nothing else."""

import pytest
import torch
from torch import nn

from resnet import build
from resnet.training import batch_norm_statistics


def test_statistics_are_the_averages_of_the_batches_by_hand() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    batches = [torch.randn(4, 3, 5, 5) * 2 + 1, torch.randn(2, 3, 5, 5)]
    batch_norm_statistics.set_statistics(network, batch_norm_statistics.statistics(network, batches))
    means = [b.mean((0, 2, 3)) for b in batches]
    variances = [b.var((0, 2, 3)) for b in batches]
    layer = network[0]
    assert isinstance(layer, nn.BatchNorm2d)
    torch.testing.assert_close(layer.running_mean, (4 * means[0] + 2 * means[1]) / 6)
    torch.testing.assert_close(layer.running_var, (4 * variances[0] + 2 * variances[1]) / 6)


def test_sums_of_ranks_add_up_and_the_network_is_as_before() -> None:
    torch.manual_seed(0)
    network = build("cifar10-resnet8", 3).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    batches = list(torch.randn(6, 4, 3, 32, 32))
    whole = batch_norm_statistics.statistics(network, batches)
    torch.testing.assert_close(
        batch_norm_statistics.statistics(network, batches[:2]) + batch_norm_statistics.statistics(network, batches[2:]),
        whole,
    )
    assert not network.training
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    assert all(layer.momentum == 0.1 for layer in batch_norm_statistics.batch_norm_layers(network))
    batch_norm_statistics.set_statistics(network, whole)
    weights = dict(network.named_parameters())
    assert all(torch.equal(t, before[name]) for name, t in weights.items())


def test_with_exact_statistics_evaluation_is_close_to_training_on_the_same_images() -> None:
    torch.manual_seed(0)
    network, pixels = build("cifar10-resnet8", 3), 3 * torch.randn(64, 3, 32, 32) + 5
    wanted = network.train()(pixels).softmax(1)
    far = (network.eval()(pixels).softmax(1) - wanted).abs().mean()
    batch_norm_statistics.set_statistics(network, batch_norm_statistics.statistics(network, [pixels]))
    near = (network.eval()(pixels).softmax(1) - wanted).abs().mean()
    assert near < 1e-3 < far


def test_no_example_is_refused() -> None:
    network = build("cifar10-resnet8", 3)
    with pytest.raises(ValueError, match="at least one training example, got none"):
        batch_norm_statistics.set_statistics(network, batch_norm_statistics.statistics(network, []))
