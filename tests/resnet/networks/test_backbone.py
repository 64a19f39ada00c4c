import copy
from collections import OrderedDict
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import resnet as theirs
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3
from torchvision.models.segmentation.fcn import FCN, FCNHead
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d

import resnet
from resnet.networks.backbone import Backbone, map_names
from resnet.networks.resnet import build
from tests.resnet.networks.test_resnet import perturb

NAMES = ["imagenet-resnet18-A", "imagenet-resnet50-B", "cifar10-plain8", "cifar10-resnet8-C"]
OUTPUT_STRIDES = {"imagenet": (4, 8, 16, 32), "cifar10": (1, 2, 4)}
DETECTION = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0))


def close(found, wanted):
    """Equal but for rounding, which frozen norms do otherwise."""
    assert wanted.norm() > 0
    return found.shape == wanted.shape and (found - wanted).norm() < 1e-5 * wanted.norm()


@cache
def original(name):
    torch.manual_seed(0)
    net = build(name)
    perturb(net)
    return net


def made(name):
    """A network whose norms are away from 1 and 0. Drawn once: 25 million normal numbers take a second."""
    return copy.deepcopy(original(name))


@pytest.mark.parametrize("name", NAMES)
def test_its_maps_are_the_network_s_own(name):
    net, images = made(name).eval(), torch.randn(1, 3, 64, 96)
    features, wanted = net.features(images), map_names(net.network)
    maps = Backbone(net).eval()(images)
    assert list(maps) == list(wanted) == [f"C{i}" for i in range(2, 2 + len(wanted))]
    assert close(maps[wanted[-1]], features)
    body = Backbone(net)
    assert [tuple(m.shape[1:]) for m in maps.values()] == [
        (c, 64 // s, 96 // s) for c, s in zip(body.channels, body.strides, strict=True)
    ]
    assert body.strides == OUTPUT_STRIDES[net.network.family]


@pytest.mark.parametrize("name", NAMES)
def test_a_dilated_map_has_the_strided_one_at_its_places(name):
    """Dilation keeps every value that the strided network computes, and adds those between."""
    images, (*_, before, last) = torch.randn(1, 3, 64, 64), map_names(made(name).network)
    plain = Backbone(made(name)).eval()(images)
    dense = Backbone(made(name), dilated=(before, last))
    step = 4  # two stages that do not halve
    assert dense.strides[-1] * step == Backbone(made(name)).strides[-1]
    found = dense.eval()(images)
    assert close(found[last][..., ::step, ::step], plain[last])
    assert close(found[before][..., ::2, ::2], plain[before])


def test_dilated_as_torchvision_dilates():
    ours = build("imagenet-resnet50-B-v1.5")
    ours.load_state_dict(original("imagenet-resnet50-B").state_dict())
    other = theirs.resnet50(replace_stride_with_dilation=[False, True, True])
    other.load_state_dict(ours.state_dict())
    images, body = torch.randn(1, 3, 64, 64), Backbone(ours, ("C5",), dilated=("C4", "C5"))
    x = other.eval().maxpool(other.relu(other.bn1(other.conv1(images))))
    for name in ("layer1", "layer2", "layer3", "layer4"):
        x = other.get_submodule(name)(x)
    assert close(body(images)["C5"], x)
    assert set(body.state_dict()) == {
        k for k in other.state_dict() if not k.startswith("fc.") and "num_batches" not in k
    }


def test_frozen_norms_neither_learn_nor_count():
    body = Backbone(made("cifar10-resnet8-C"), frozen_norm=True).train()
    before = {k: v.clone() for k, v in body.state_dict().items()}
    loss = sum((m.square().mean() for m in body(torch.randn(2, 3, 16, 16)).values()), torch.zeros(()))
    loss.backward()
    assert {k for k, p in body.named_parameters() if p.grad is not None} == {
        k for k in before if k.endswith(("conv1.weight", "conv2.weight", "downsample.0.weight"))
    }
    assert all(torch.equal(v, before[k]) for k, v in body.state_dict().items())
    learning = Backbone(made("cifar10-resnet8-C"), frozen_norm=False)
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in learning.modules())


@pytest.mark.parametrize(("stages", "trained"), [(0, set()), (1, {"layer4"}), (3, {"layer2", "layer3", "layer4"})])
def test_train_last_trains_the_last_stages_only(stages, trained):
    body = Backbone(made("imagenet-resnet18-A"))
    body.train_last(stages)
    assert {k.partition(".")[0] for k, p in body.named_parameters() if p.requires_grad} == trained


def test_train_last_of_more_stages_trains_the_stem_too():
    body = Backbone(made("imagenet-resnet18-A"))
    body.train_last(5)
    assert all(p.requires_grad for p in body.parameters())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"out": ("C5",)}, "out must be some of C2, C3, C4 for cifar10-resnet8-A, got C5"),
        ({"out": {}}, "out must be some of C2, C3, C4 for cifar10-resnet8-A, got none"),
        ({"dilated": ("layer3",)}, "dilated must be some of C2, C3, C4 for cifar10-resnet8-A, got layer3"),
    ],
)
def test_a_map_that_is_not_there_is_named(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Backbone(build("cifar10-resnet8"), **options)


# --- In torchvision's heads -------------------------------------------------------------------------------------------


class Pyramid(nn.Module):
    """A backbone and torchvision's FPN, as its detectors take it."""

    def __init__(self, body, out_channels=16):
        super().__init__()
        self.body, self.fpn, self.out_channels = body, FeaturePyramidNetwork(list(body.channels), out_channels), 16

    def forward(self, x):
        return self.fpn(self.body(x))


def learns(module, loss):
    """Every trained weight has a gradient that is a number, and those of the first stage are not all zero."""
    loss.backward()
    gradients = {k: p.grad for k, p in module.named_parameters() if p.requires_grad}
    assert all(g is not None and torch.isfinite(g).all() for g in gradients.values())
    return [k for k, g in gradients.items() if "layer1.0.conv1" in k and g is not None and g.abs().sum() > 0]


def test_in_torchvision_s_pyramid():
    body = Backbone(made("imagenet-resnet18-A"), {f"C{n}": str(n - 2) for n in range(2, 6)})
    pyramid = Pyramid(body)
    maps = pyramid(torch.randn(1, 3, 64, 96))
    assert isinstance(maps, OrderedDict)
    assert {k: tuple(m.shape) for k, m in maps.items()} == {
        "0": (1, 16, 16, 24),
        "1": (1, 16, 8, 12),
        "2": (1, 16, 4, 6),
        "3": (1, 16, 2, 3),
    }
    assert learns(pyramid, sum(m.square().sum() for m in maps.values()))


@pytest.mark.parametrize("kind", [FasterRCNN, RetinaNet])
def test_in_torchvision_s_detectors(kind):
    torch.manual_seed(0)
    body = Backbone(made("imagenet-resnet18-A"), {f"C{n}": str(n - 2) for n in range(2, 6)})
    anchors: Any = AnchorGenerator(((16,), (32,), (48,), (64,)), ((0.5, 1.0, 2.0),) * 4)
    name = "rpn_anchor_generator" if kind is FasterRCNN else "anchor_generator"
    given: dict[str, Any] = {"min_size": 64, "max_size": 96, name: anchors}
    detector = kind(Pyramid(body), 3, **given)
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    losses = detector([DETECTION], [target])
    assert learns(detector, sum(losses.values()))
    (found,) = detector.eval()([DETECTION])
    assert set(found) == {"boxes", "labels", "scores"}
    assert found["boxes"].shape[1:] == (4,)


@pytest.mark.parametrize(("kind", "head"), [(FCN, FCNHead), (DeepLabV3, DeepLabHead)])
def test_in_torchvision_s_segmentation(kind, head):
    torch.manual_seed(0)
    body = Backbone(made("imagenet-resnet18-A"), {"C4": "aux", "C5": "out"}, dilated=("C4", "C5"))
    assert body.strides == (8, 8)
    network = kind(body, head(body.channels[1], 5), FCNHead(body.channels[0], 5))
    found = network(torch.randn(2, 3, 64, 96))
    assert {k: tuple(m.shape) for k, m in found.items()} == {"out": (2, 5, 64, 96), "aux": (2, 5, 64, 96)}
    assert learns(network, found["out"].square().mean() + found["aux"].square().mean())


def test_resnet_backbone_is_the_way_in():
    torch.manual_seed(0)
    body = resnet.backbone("cifar10-resnet8", out=("C3", "C4"))
    assert list(body(torch.randn(1, 3, 16, 16))) == ["C3", "C4"]
