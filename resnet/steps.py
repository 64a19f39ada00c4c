"""One training step and one evaluation step of one process. They return sums over examples, never means of means."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Normalize(nn.Module):
    """uint8 images (N, H, W, 3) -> (pixels - mean) / std as (N, 3, H, W) floats in channels_last order.

    mean: (3, H, W) or (3, 1, 1), in [0, 255]; std: (3, 1, 1). The paper subtracts the per-pixel mean only; dividing by
    one std a channel scales the input of the first batch norm and leaves the function class as it is.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std.float())

    def forward(self, images: Tensor, shift: Tensor | None = None) -> Tensor:
        """images: (N, H, W, 3) uint8; shift: (N, 3) added to the pixels, in [0, 255] (PCA colour)."""
        pixels = images.permute(0, 3, 1, 2).float()  # NHWC memory seen as NCHW: channels_last without a copy
        if shift is not None:
            pixels = pixels + shift[:, :, None, None]
        return (pixels - self.mean) / self.std


def native_precision(device: torch.device) -> str:
    """bfloat16 where the hardware multiplies it natively (AVX512-BF16, AMX, CUDA from Ampere on), else float32."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    if device.type == "cpu" and hasattr(torch.cpu, "_is_avx512_bf16_supported"):
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bfloat16" if fast else "float32"
    return "float32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Mixed precision: matrix products and convolutions in `precision`, weights and sums in float32."""
    return torch.autocast(device.type, dtype=PRECISIONS[precision], enabled=precision != "float32")


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, pixels: Tensor, labels: Tensor, precision: str = "float32"
) -> Tensor:
    """Forward, backward, update. pixels: (N, 3, H, W); labels: (N,). (3,) sums: loss, top-1 errors, examples."""
    with autocast(pixels.device, precision):
        logits = model(pixels)
    loss = F.cross_entropy(logits.float(), labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        wrong = (logits.argmax(1) != labels).sum()
        count = torch.tensor(float(len(labels)), device=labels.device)
        return torch.stack([loss.detach() * count, wrong.float(), count]).double()


@torch.no_grad()
def eval_step(model: nn.Module, pixels: Tensor, labels: Tensor, precision: str = "float32") -> Tensor:
    """Sums over a batch, (4,): loss, top-1 errors, top-5 errors, examples. pixels: (N, 3, H, W); labels: (N,)."""
    with autocast(pixels.device, precision):
        logits = model(pixels)
    return score(logits.float(), labels)


def score(logits: Tensor, labels: Tensor) -> Tensor:
    """Sums over a batch, (4,) float64: loss, top-1 errors, top-5 errors, examples. logits: (N, K); labels: (N,)."""
    loss = F.cross_entropy(logits, labels, reduction="sum")
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    count = torch.tensor(float(len(labels)), device=labels.device)
    return torch.stack([loss, count - best[:, 0].sum(), count - best.any(1).sum(), count]).double()
