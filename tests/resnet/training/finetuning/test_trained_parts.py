"""What of a network begins with trained weights, and what of it is trained."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18

from resnet.image_class import ImageClass
from resnet.networks.resnet import ResNet, build
from resnet.recipes.recipe_settings import FineTuning, Optim
from resnet.training.finetuning.trained_parts import FrozenBatchNorm, class_weights, freeze, rows_of_head, take_weights
from resnet.training.optimizer import optimizer, set_lr
from resnet.training.step import train_step

NETWORK = "imagenet-resnet18-B-v1.5"


def classes(*names: str) -> tuple[ImageClass, ...]:
    return tuple(ImageClass(id=i, wnid=name, name=name) for i, name in enumerate(names))


def test_weights_are_taken_with_the_rows_of_the_data_s_classes() -> None:
    torch.manual_seed(0)
    theirs, net = resnet18(num_classes=5), build(NETWORK, 2)
    images = torch.randn(2, 3, 64, 64)
    take_weights(net, theirs.state_dict(), [4, 1])
    with torch.no_grad():
        expected = theirs.eval()(images)[:, [4, 1]]
        torch.testing.assert_close(net.eval()(images), expected, rtol=1e-4, atol=1e-4)


def test_a_new_classifier_is_the_network_s_own() -> None:
    torch.manual_seed(0)
    net = build(NETWORK, 3)
    own = net.fc.weight.clone()
    weights = {n: t for n, t in build(NETWORK, 1000).state_dict().items() if not n.endswith("num_batches_tracked")}
    take_weights(net, weights, None)
    assert torch.equal(net.fc.weight, own)
    assert torch.equal(net.conv1.weight, weights["conv1.weight"])


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ("imagenet-resnet34-B", "are unknown"),
        ("imagenet-resnet18-A", "are missing"),
        ("imagenet-resnet50-B", "have another shape"),
    ],
)
def test_weights_of_another_depth_shortcut_or_width_are_refused(other: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        take_weights(build(NETWORK, 3), build(other, 3).state_dict(), None)


def test_rows_are_found_by_the_ids_of_classes() -> None:
    known = classes("cat", "dog", "cow")
    assert rows_of_head(known, classes("cow", "cat")) == [2, 0]
    assert rows_of_head(known, classes("cow", "sheep")) is None
    assert rows_of_head(known, known, "new") is None
    assert rows_of_head(None, known) is None
    with pytest.raises(ValueError, match=r"head must be new or auto .* sheep, got kept and weights of 3 classes"):
        rows_of_head(known, classes("cow", "sheep"), "kept")
    with pytest.raises(ValueError, match=r"do not say what their outputs mean"):
        rows_of_head(None, known, "kept")


def moved(net: ResNet, asked: FineTuning, head_lr: float = 1.0) -> set[str]:
    """Names of the tensors that a step changes, counters left out."""
    freeze(net, asked)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    optim = optimizer(net.train(), Optim(lr=0.1), head_lr)
    train_step(net, optim, torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0]))
    after = net.state_dict()
    return {n for n, t in before.items() if not torch.equal(t, after[n]) and "num_batches" not in n}


def test_frozen_parts_keep_weights_and_statistics_and_all_else_is_trained() -> None:
    torch.manual_seed(0)
    names = set(build(NETWORK, 3).state_dict())
    frozen = ("conv1.", "bn1.", "layer1.", "layer2.")
    expected = {n for n in names if not n.startswith(frozen) and "num_batches" not in n}
    assert moved(build(NETWORK, 3), FineTuning(frozen="layer2")) == expected
    assert moved(build(NETWORK, 3), FineTuning(frozen="layer4")) == {"fc.weight", "fc.bias"}


def test_frozen_batch_norms_learn_nothing_and_convolutions_do() -> None:
    torch.manual_seed(0)
    net = build(NETWORK, 3)
    learns = {f"{n}.weight" for n, m in net.named_modules() if isinstance(m, nn.Conv2d)} | {"fc.weight", "fc.bias"}
    assert moved(net, FineTuning(batch_norm="frozen")) == learns


def test_a_frozen_batch_norm_is_the_one_of_evaluation_in_training_too() -> None:
    torch.manual_seed(0)
    net = build("cifar10-resnet8", 3)
    net(torch.randn(16, 3, 32, 32))  # statistics of its own
    images = torch.randn(4, 3, 32, 32)
    expected = net.eval()(images)
    freeze(net, FineTuning(batch_norm="frozen"))
    assert all(isinstance(m, FrozenBatchNorm) for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert torch.equal(net.train()(images), expected)


def as_float32(lr: float) -> float:
    return torch.tensor(lr).item()


def test_the_classifier_learns_by_its_own_lr() -> None:
    torch.manual_seed(0)
    net = build("cifar10-resnet8", 3)
    optim = optimizer(net, Optim(lr=0.1, decay_norm_and_bias=False), head_lr=10)
    set_lr(optim, 0.02)
    lr = {id(p): group["lr"] for group in optim.param_groups for p in group["params"]}
    assert {lr[id(p)] for n, p in net.named_parameters() if n.startswith("fc.")} == {as_float32(0.2)}
    assert {lr[id(p)] for n, p in net.named_parameters() if not n.startswith("fc.")} == {as_float32(0.02)}
    decay = {id(p): group["weight_decay"] for group in optim.param_groups for p in group["params"]}
    assert all(decay[id(p)] == (1e-4 if p.ndim > 1 else 0) for p in net.parameters())


def test_class_weights_even_classes_out() -> None:
    """Three images of one class, one of another, none of a third: 4 / (2 x 3) and 4 / (2 x 1)."""
    weights = class_weights([3, 1, 0])
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2.0, 0.0]))
    labels = torch.tensor([0, 0, 0, 1])
    assert weights[labels].mean() == pytest.approx(1)
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    losses = F.cross_entropy(logits, labels, reduction="none")
    by_class = (losses[:3].mean() + losses[3]) / 2
    assert (losses * weights[labels]).mean() == pytest.approx(float(by_class))
