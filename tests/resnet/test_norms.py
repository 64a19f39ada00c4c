"""Norms of layers, against torch's own gradients written out by hand."""

import pytest
import torch
from torch import nn

from resnet.norms import is_watched, layer_norms


def test_norms_are_of_each_layers_own_gradient_and_weights() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    (8 * net(torch.randn(5, 3, 4, 4)).square().sum()).backward()
    found = layer_norms(net, scale=8)
    assert list(found) == ["0", "3"], "convolutions and the classifier, in their order"
    for name, (gradient, weight) in found.items():
        parameter = net.get_parameter(f"{name}.weight")
        assert parameter.grad is not None
        assert gradient == pytest.approx(parameter.grad.square().sum().sqrt().item() / 8, rel=1e-3)
        assert weight == pytest.approx(parameter.square().sum().sqrt().item(), rel=1e-3)


def test_the_first_steps_and_the_last_are_looked_at() -> None:
    assert [step for step in range(3000) if is_watched(step, 3000)] == [0, 100, 1000, 2999]
