"""One training step and one evaluation step of one process. They return sums over examples, never means of means.

A step is `accumulate`, once or for each part of its batch, and `update`. Nothing here waits for the device, so a step
can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn import functional as F

from resnet.training.mixing import Mixed
from resnet.training.torch_internals import multiplies_bfloat16

# tf32 is float32 whose products a GPU rounds to 10 bits, as cuDNN does in convolutions unless it is told otherwise.
PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Normalize(nn.Module):
    """uint8 images (N, H, W, 3) -> (pixels - mean) / std as (N, 3, H, W) floats in channels_last order.

    mean: (3, H, W) or (3, 1, 1), in [0, 255]; std: (3, 1, 1). The paper subtracts the per-pixel mean only; dividing by
    one std a channel scales the input of the first batch norm and leaves the function class as it is.
    channels_last: False gives (N, 3, H, W) in that order in memory too.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, channels_last: bool = True) -> None:
        super().__init__()
        self.channels_last = channels_last
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std.float())

    def forward(self, images: Tensor, shift: Tensor | None = None) -> Tensor:
        """images: (N, H, W, 3) uint8; shift: (N, 3) added to the pixels, in [0, 255] (PCA colour)."""
        # Whole rows of a constant: with the three channels alone as the inner loop this takes five times as long
        width = images.shape[2]
        mean, std = (constant.permute(1, 2, 0).expand(-1, width, -1).contiguous() for constant in (self.mean, self.std))
        pixels = images.float()
        if shift is not None:
            pixels = pixels + shift[:, None, None].expand(-1, -1, width, -1).contiguous()
        pixels = ((pixels - mean) / std).permute(0, 3, 1, 2)  # NHWC memory seen as NCHW: channels_last without a copy
        return pixels if self.channels_last else pixels.contiguous()


def native_precision(device: torch.device) -> str:
    """bfloat16 where the hardware multiplies it natively (AVX512-BF16, AMX, CUDA from Ampere on), else float32."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    if device.type == "cpu":
        return "bfloat16" if multiplies_bfloat16() else "float32"
    return "float32"


def require_device(device: torch.device, precision: str) -> None:
    """ValueError: there is no such device, or it does not compute in this precision."""
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("gpu must be off where torch sees no GPU, got a GPU that was asked for")
    if precision == "tf32" and device.type != "cuda":
        raise ValueError("precision must be one that a CPU computes in, such as float32, got tf32, which GPUs have")


def set_products(precision: str) -> None:
    """Round float32 products of this process's GPU as `precision` says: not at all, or to 10 bits with tf32.

    By default cuDNN rounds those of convolutions, and cuBLAS none: float32 would be neither the one nor the other.
    """
    # Not by torch's newer fp32_precision: the older settings, which torch.compile reads, could not be read any more.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def choose_algorithms(deterministic: bool) -> None:
    """cuDNN's algorithms in this process: the same in each run, or for each shape the quickest by a stopwatch.

    deterministic: also refuse operations of torch that give other bits in each run. cuBLAS needs
    CUBLAS_WORKSPACE_CONFIG too, before CUDA starts.
    """
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Mixed precision: matrix products and convolutions in `precision`, weights and sums in float32.

    On a GPU the rounding of float32 products stays as it is set here: the backward pass comes after the context.
    """
    if device.type == "cuda":
        set_products(precision)
    return torch.autocast(device.type, dtype=PRECISIONS[precision], enabled=PRECISIONS[precision] != torch.float32)


def scaler(device: torch.device, precision: str) -> GradScaler:
    """Scales the loss where gradients in float16 would vanish; does nothing with the other precisions."""
    return GradScaler(device.type, enabled=precision == "float16")


def to_device(network: nn.Module, device: torch.device, channels_last: bool = True) -> nn.Module:
    """The network on a device, its convolutions in the memory format of their images. Normalize takes the same flag."""
    return network.to(device).to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def accumulate(
    model: nn.Module,
    pixels: Tensor,
    target: Tensor | Mixed,
    share: float = 1.0,
    precision: str = "float32",
    label_smoothing: float = 0.0,
    scaler: GradScaler | None = None,
    class_weights: Tensor | None = None,
    criterion: Callable[[Tensor, Any], tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """Forward and backward of one part of a step's batch. (3,) sums: loss, top-1 errors, examples.

    pixels: (N, 3, H, W); target: labels (N,), or labels in pairs after mixing; share: of the part in this process's
    examples of the step. Over all parts the gradients add up to those of the undivided batch, but for batch norm, which
    sees each part alone. With DDP all parts but the last belong into model.no_sync(). class_weights: (K,), or None.
    criterion: another loss than the cross-entropy of these two: from logits and target to loss and number of errors.
    """
    with autocast(pixels.device, precision):
        logits = model(pixels).float()
    if criterion is None:
        loss, wrong = loss_and_errors(logits, target, label_smoothing, class_weights)
    else:
        loss, wrong = criterion(logits, target)
    part = loss if share == 1 else loss * share
    (part if scaler is None else scaler.scale(part)).backward()
    with torch.no_grad():
        count = torch.full((), float(len(pixels)), device=pixels.device)
        return torch.stack([loss.detach() * count, wrong.float(), count]).double()


def update(optimizer: torch.optim.Optimizer, scaler: GradScaler | None = None) -> bool:
    """One step of the optimiser with the gradients that were added up; then there are none. Whether it was made.

    With float16 a step whose scaled gradients overflow is left out, and the scale is halved: to know it the host waits
    for the device.
    """
    made = True
    if scaler is None or not scaler.is_enabled():
        optimizer.step()
    else:
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        made = scaler.get_scale() >= before
    optimizer.zero_grad(set_to_none=True)
    return made


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    pixels: Tensor,
    target: Tensor | Mixed,
    precision: str = "float32",
    *,
    label_smoothing: float = 0.0,
    scaler: GradScaler | None = None,
) -> Tensor:
    """Forward, backward, update. pixels: (N, 3, H, W); target: labels (N,). (3,) sums: loss, top-1 errors, examples."""
    optimizer.zero_grad(set_to_none=True)
    sums = accumulate(model, pixels, target, 1.0, precision, label_smoothing, scaler)
    update(optimizer, scaler)
    return sums


def loss_and_errors(
    logits: Tensor, target: Tensor | Mixed, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy, and the number of wrong answers. logits: (N, K). A mixed image counts by the shares of both
    its labels, so that its error goes on meaning something. class_weights: (K,), of an image's loss by its label.
    """
    best = logits.detach().argmax(1)
    if not isinstance(target, Mixed):
        return _mean_loss(logits, target, label_smoothing, class_weights), (best != target).sum()
    weighed = ((target.labels, target.share), (target.others, 1 - target.share))
    losses = [share * _mean_loss(logits, labels, label_smoothing, class_weights) for labels, share in weighed]
    errors = [share * (best != labels).sum() for labels, share in weighed]
    return losses[0] + losses[1], errors[0] + errors[1]


def _mean_loss(logits: Tensor, labels: Tensor, label_smoothing: float, class_weights: Tensor | None) -> Tensor:
    """Divided by the number of images, and not by their weights as torch does: parts of a batch then add up to it."""
    if class_weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    losses = F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")
    return (losses * class_weights[labels]).mean()


@torch.no_grad()
def eval_step(model: nn.Module, pixels: Tensor, labels: Tensor, precision: str = "float32", classes: int = 0) -> Tensor:
    """Sums over a batch, (4 + 2 classes,): loss, top-1 errors, top-5 errors, examples; where the number of classes is
    given, also top-1 errors of each class, and examples of each. pixels: (N, 3, H, W); labels: (N,)."""
    with autocast(pixels.device, precision):
        logits = model(pixels)
    sums = error_sums(logits.float(), labels)
    if not classes:
        return sums
    wrong = labels[logits.argmax(1) != labels]
    counts = [torch.bincount(some, minlength=classes).double() for some in (wrong, labels)]
    return torch.cat([sums, *counts])


def error_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Sums over a batch, (4,) float64: loss, top-1 errors, top-5 errors, examples. logits: (N, K); labels: (N,)."""
    loss = F.cross_entropy(logits, labels, reduction="sum")
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    count = torch.full((), float(len(labels)), device=labels.device)
    return torch.stack([loss, count - best[:, 0].sum(), count - best.any(1).sum(), count]).double()
