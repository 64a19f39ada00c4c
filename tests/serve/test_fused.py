"""oneDNN's fused convolutions: the plain network's features for every kind of block; not used where they are not."""

import pytest
import torch

from resnet.net import ResNet, build
from serve import fused
from serve.classifier import fold_batch_norm


def folded(name: str, dtype: torch.dtype = torch.float32) -> ResNet:
    """An untrained network, its batch normalisation folded, as it is served."""
    torch.manual_seed(0)
    net = build(name, 5).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.3, 0.8)
            torch.nn.init.normal_(module.bias, std=0.2)
    fold_batch_norm(net)
    return net.to(dtype).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("imagenet-resnet18-A", 64),
        ("imagenet-resnet50", 64),
        ("imagenet-resnet50-C", 96),
        ("imagenet-resnet50-v1.5", 64),
        ("imagenet-plain18", 64),
        ("cifar10-resnet20", 32),
        ("cifar10-resnet8-C", 32),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_features_are_the_plain_networks_whatever_the_batch(name: str, size: int, dtype: torch.dtype):
    plain = folded(name, dtype)
    quick = fused.fuse(plain, size)
    if quick is plain:
        pytest.skip("torch has no oneDNN here")
    images = torch.randn(5, 3, size, size).to(dtype).contiguous(memory_format=torch.channels_last)
    kept = images.clone()
    with torch.inference_mode():
        exact = plain.float().features(images.float())
        for count in (5, 1, 2):
            found = quick.features(images[:count]).float()
            assert (found - exact[:count]).abs().max() < fused.TOLERANCE[dtype] * exact.abs().max()
    assert torch.equal(images, kept), "sums are written over the network's own maps, never over its input"


def test_one_layer_that_rounds_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    plain = folded("cifar10-resnet8")
    if fused.fuse(plain, 32) is plain:
        pytest.skip("torch has no oneDNN here")
    right = fused.Convolution.plus
    monkeypatch.setattr(fused.Convolution, "plus", lambda self, x, shortcut: right(self, x, shortcut) * 1.01)
    assert fused.fuse(plain, 32) is plain
    assert "differ from torch's by" in caplog.text


def test_without_the_operators_the_network_is_as_it_was(monkeypatch: pytest.MonkeyPatch):
    def missing(*_: object) -> None:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_reorder_convolution_weight'")

    monkeypatch.setattr(fused.Convolution, "__init__", missing)
    plain = folded("cifar10-resnet8")
    assert fused.fuse(plain, 32) is plain
