"""Choice of a network's engine on a CPU: the quickest that is installed and gives the plain network's numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from resnet.networks.resnet import ResNet
from serve.inference.engines.onednn import Fused
from serve.inference.engines.openvino import OpenVINO

log = logging.getLogger(__name__)
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05}  # of the largest feature; bfloat16 has 8 bits


class Engine(Protocol):
    """A ResNet up to its pooling."""

    def features(self, x: Tensor, /) -> Tensor:
        """(N, 3, S, S), channels_last, to the map before pooling."""
        ...


# The quickest first; results/network.json.
ENGINES: dict[str, Callable[[ResNet, Tensor, int], Engine]] = {
    "OpenVINO": OpenVINO,
    "oneDNN": lambda plain, images, _: Fused(plain, images),
}


@torch.inference_mode()
def choose(body: ResNet, size: int, threads: int) -> tuple[Engine, str]:
    """The engine for a folded network of float32 or bfloat16, and its name; `torch` is the network itself.

    An engine that is not installed, or not for this CPU, is passed over, and so is one whose features differ from the
    plain network's. size: side of its images.
    """
    dtype = body.conv1.weight.dtype
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    expected = body.features(images).float()
    for name, make in ENGINES.items():
        try:
            engine = make(body, images, threads)
            found = engine.features(images).float()
        except (ImportError, AttributeError, RuntimeError) as error:
            log.info("%s is not to be had for the network: %s", name, error)
            continue
        off = ((found - expected).abs().max() / expected.abs().max()).item()
        if off < TOLERANCE[dtype]:
            return engine, name
        log.warning("%s is not used: its features differ by %.2g of the largest from torch's own", name, off)
    return body, "torch"
