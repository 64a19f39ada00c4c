"""Every engine gives the plain network's features for every kind of block, and is passed over where it does not."""

import importlib.util
from typing import Any

import pytest
import torch

from resnet.net import ResNet, build
from serve import engines
from serve.classifier import folded
from serve.fused import Convolution


def served(name: str, dtype: torch.dtype = torch.float32) -> ResNet:
    """An untrained network as it is served, with batch normalisation that is more than none."""
    torch.manual_seed(0)
    net = build(name, 5)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.3, 0.8)
            torch.nn.init.normal_(module.bias, std=0.2)
    return folded(net, dtype)


def require(engine: str) -> None:
    if engine == "OpenVINO" and importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed: .venv/bin/uv pip install openvino")
    if engine == "oneDNN" and not torch.backends.mkldnn.is_available():
        pytest.skip("torch has no oneDNN here")


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
@pytest.mark.parametrize("engine", list(engines.ENGINES))
def test_the_features_are_the_plain_networks_whatever_the_batch(engine: str, name: str, size: int, dtype: torch.dtype):
    require(engine)
    plain = served(name, dtype)
    images = torch.randn(5, 3, size, size).to(dtype).contiguous(memory_format=torch.channels_last)
    kept = images.clone()
    with torch.inference_mode():
        quick = engines.ENGINES[engine](plain, images[:1], 1)
        exact = served(name).features(images.float())
        for count in (5, 1, 2):
            found = quick.features(images[:count]).float()
            assert (found - exact[:count]).abs().max() < engines.TOLERANCE[dtype] * exact.abs().max()
    assert torch.equal(images, kept), "sums are written over the network's own maps, never over its input"


def test_what_rounds_otherwise_is_passed_over(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    require("oneDNN")
    plain = served("cifar10-resnet8")
    only = {"oneDNN": engines.ENGINES["oneDNN"]}
    monkeypatch.setattr(engines, "ENGINES", only)
    assert engines.choose(plain, 32, 1)[1] == "oneDNN"
    right = Convolution.plus
    monkeypatch.setattr(Convolution, "plus", lambda self, x, shortcut: right(self, x, shortcut) * 1.01)
    assert engines.choose(plain, 32, 1) == (plain, "torch")
    assert "oneDNN is not used: its features differ by" in caplog.text


@pytest.mark.parametrize("error", [ImportError, AttributeError, RuntimeError])
def test_what_is_not_to_be_had_is_passed_over(error: type[Exception], monkeypatch: pytest.MonkeyPatch):
    def missing(*_: Any) -> Any:
        raise error("not here")

    monkeypatch.setattr(engines, "ENGINES", {"one": missing, "another": missing})
    plain = served("cifar10-resnet8")
    assert engines.choose(plain, 32, 1) == (plain, "torch")
