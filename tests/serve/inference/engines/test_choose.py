"""Every engine gives the plain network's features for every kind of block, and is passed over where it does not."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from resnet.networks.resnet import ResNet, build
from serve.inference.classifier import folded
from serve.inference.engines import choose, openvino
from serve.inference.engines.onednn import Convolution

ROOT = Path(__file__).resolve().parents[4]


def served(name: str, dtype: torch.dtype = torch.float32) -> ResNet:
    """An untrained network as it is served, with batch normalisation that is more than none."""
    torch.manual_seed(0)
    net = build(name, 5)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.3, 0.8)
            torch.nn.init.normal_(module.bias, std=0.2)
    return folded(net, dtype)


def require(engine: str, dtype: torch.dtype = torch.float32) -> None:
    if engine == "OpenVINO" and importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed: .venv/bin/uv pip install openvino")
    if engine == "OpenVINO" and dtype == torch.bfloat16:
        capabilities = openvino.core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if "BF16" not in capabilities:
            pytest.skip("OpenVINO multiplies bfloat16 with AVX512 or AMX only, which this CPU lacks")
    if engine == "oneDNN" and not torch.backends.mkldnn.is_available():
        pytest.skip("torch has no oneDNN here")
    if engine == "oneDNN" and dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN multiplies bfloat16 with AVX512 only, which this CPU lacks")


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
@pytest.mark.parametrize("engine", list(choose.ENGINES))
def test_the_features_are_the_plain_networks_whatever_the_batch(engine: str, name: str, size: int, dtype: torch.dtype):
    require(engine, dtype)
    plain = served(name, dtype)
    images = torch.randn(5, 3, size, size).to(dtype).contiguous(memory_format=torch.channels_last)
    kept = images.clone()
    with torch.inference_mode():
        quick = choose.ENGINES[engine](plain, images[:1], 1)
        exact = served(name).features(images.float())
        for count in (5, 1, 2):
            found = quick.features(images[:count]).float()
            assert (found - exact[:count]).abs().max() < choose.TOLERANCE[dtype] * exact.abs().max()
    assert torch.equal(images, kept), "sums are written over the network's own maps, never over its input"


def test_what_rounds_otherwise_is_passed_over(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    require("oneDNN")
    plain = served("cifar10-resnet8")
    only = {"oneDNN": choose.ENGINES["oneDNN"]}
    monkeypatch.setattr(choose, "ENGINES", only)
    assert choose.choose(plain, 32, 1)[1] == "oneDNN"
    right = Convolution.plus
    monkeypatch.setattr(Convolution, "plus", lambda self, x, shortcut: right(self, x, shortcut) * 1.01)
    assert choose.choose(plain, 32, 1) == (plain, "torch")
    assert "oneDNN is not used: its features differ by" in caplog.text


@pytest.mark.parametrize("error", [ImportError, AttributeError, RuntimeError])
def test_what_is_not_to_be_had_is_passed_over(error: type[Exception], monkeypatch: pytest.MonkeyPatch):
    def missing(*_: Any) -> Any:
        raise error("not here")

    monkeypatch.setattr(choose, "ENGINES", {"one": missing, "another": missing})
    plain = served("cifar10-resnet8")
    assert choose.choose(plain, 32, 1) == (plain, "torch")


def test_a_cpu_without_bfloat16_instructions_serves_with_torch_itself():
    """On AVX2 oneDNN's operators refuse bfloat16; the instruction set is held down for a process of its own."""
    if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX"):
        pytest.skip("only x86 has an instruction set that can be held down so")
    program = (
        "import torch; from tests.serve.inference.engines.test_choose import served; "
        "from serve.inference.engines import choose as engines; "
        "plain = served('cifar10-resnet8', torch.bfloat16); "
        "engines.ENGINES = {'oneDNN': engines.ENGINES['oneDNN']}; "
        "print(engines.choose(plain, 32, 1)[1], engines.choose(plain.float(), 32, 1)[1])"
    )
    held = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", program], env=os.environ | held, capture_output=True, text=True)
    assert found.stdout.split() == ["torch", "oneDNN"], found.stderr
