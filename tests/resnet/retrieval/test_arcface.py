"""ArcFace: the cosines of the network, the margin of the paper, and a trained network that is one like any other."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from resnet.networks.resnet import build
from resnet.recipes.loss_settings import Loss
from resnet.retrieval.arcface import arcface, make_cosine

pytest.importorskip("pytorch_metric_learning", reason="an older .venv")


def by_hand(cosines: Tensor, labels: Tensor, margin: float, scale: float) -> Tensor:
    """Equation 3 of Deng et al., one loss an image; where angle and margin exceed pi the cosine goes on falling."""
    losses = []
    for row, label in zip(cosines.double(), labels.tolist(), strict=True):
        angle = math.acos(float(row[label]))
        moved = math.cos(angle + margin) if angle + margin <= math.pi else float(row[label]) - margin * math.sin(margin)
        others = [math.exp(scale * float(value)) for at, value in enumerate(row) if at != label]
        losses.append(-math.log(math.exp(scale * moved) / (math.exp(scale * moved) + sum(others))))
    return torch.tensor(losses)


@pytest.mark.parametrize(("margin", "scale"), [(0.5, 10.0), (0.2, 3.0)])
def test_the_loss_is_that_of_the_paper(margin: float, scale: float) -> None:
    cosines = torch.tensor([[0.9, 0.1, -0.2], [-0.99, 0.3, 0.0], [0.2, 0.7, 0.6], [0.1, 0.2, -0.3]])
    labels, weights = torch.tensor([0, 0, 2, 1]), torch.tensor([0.5, 1.0, 3.0])
    expected, asked = by_hand(cosines, labels, margin, scale), Loss(kind="arcface", margin=margin, scale=scale)
    loss, wrong = arcface(asked, 3)(cosines, labels)
    torch.testing.assert_close(loss, expected.mean(), rtol=1e-5, atol=1e-6)
    assert wrong.item() == 2, "without the margin: the second image, and the third"
    weighed, _ = arcface(asked, 3, weights)(cosines, labels)
    torch.testing.assert_close(weighed, (expected * weights[labels]).mean(), rtol=1e-5, atol=1e-6)


def test_an_embedding_that_is_its_class_has_a_gradient() -> None:
    """The arc cosine's slope is infinite there."""
    features = torch.eye(4, requires_grad=True)
    loss, _ = arcface(Loss(kind="arcface"), 4)(F.normalize(features) @ torch.eye(4), torch.arange(4))
    loss.backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


def test_it_draws_nothing_from_the_generator_of_the_training() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    arcface(Loss(kind="arcface"), 9)
    assert torch.equal(torch.rand(1), expected)


def test_the_best_class_of_the_plain_network_is_that_of_the_cosine() -> None:
    torch.manual_seed(0)
    net, plain = build("cifar10-resnet8-A", 10), build("cifar10-resnet8-A", 10)
    images = torch.randn(16, 3, 32, 32)
    features = net.eval().embed(images)
    head = make_cosine(net).eval()
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(10))
    cosines = F.normalize(features) @ head.weight.T
    plain.load_state_dict(net.state_dict())
    assert torch.equal(plain.eval()(images).argmax(1), cosines.argmax(1))
    assert torch.equal(net(images), plain(images))
    torch.testing.assert_close(head.train()(features), cosines)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(head(features), cosines)  # not rounded: a margin is a matter of small angles


def test_a_bias_that_weights_begin_with_is_gone() -> None:
    net = build("cifar10-resnet8-A", 3)
    torch.nn.init.ones_(net.fc.bias)
    head = make_cosine(net)
    assert net.fc is head
    assert (head.bias.tolist(), head.bias.requires_grad, head.weight.requires_grad) == ([0.0, 0.0, 0.0], False, True)
