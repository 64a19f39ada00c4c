"""Residual blocks compiled for training: where a run is long enough, only if it works, and else as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from resnet.networks.resnet import BasicBlock, Bottleneck
from resnet.training.step import autocast
from resnet.training.torch_internals import allow_recompilations

# Steps of a whole run from which on compiling pays on a GPU. An estimate: it takes a minute or two at each start, and
# saves some 10 ms a step, kernels with ResNet-50 at 256 images and launches with small networks.
LONG = 10_000
MOST_WORDS = 200  # characters of a complaint


def is_to_be_compiled(
    wanted: Literal["auto", "on", "off"], device: torch.device, steps: int, deterministic: bool
) -> bool:
    """With auto: on a GPU, in a run of at least LONG steps. The same at each start of a run, so that it resumes alike.

    steps: of the whole run; deterministic: whether it is to give the same bits in each run. What is compiled times its
    kernels and takes the quickest, so that then it must be asked for.
    """
    if wanted != "auto":
        return wanted == "on"
    return device.type == "cuda" and steps >= LONG and not deterministic


def compile_blocks(network: nn.Module, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile each residual block in place, for training. Blocks of one shape share their code, so that 152 layers
    compile as fast as 50. Evaluation and batch norm's statistics run without: each would compile every shape anew.
    """
    # Two shapes a stage, for each size of progressive resizing: torch gives up after 8.
    allow_recompilations(64)
    for block in _blocks(network):
        compiled: Callable[[Tensor], Tensor] = torch.compile(block.forward, backend=backend, dynamic=False)
        block.forward = _in_training(block, compiled, block.forward)


def restore_blocks(network: nn.Module) -> None:
    """Blocks that were compiled in place are as they were before."""
    for block in _blocks(network):
        block.__dict__.pop("forward", None)


def compile_or_say(
    network: nn.Module, passes: Iterable[Tensor], precision: str, backend: str | Callable[..., Any] = "inductor"
) -> str | None:
    """Compile the blocks and try them, forward and backward. None; or why they stay as they are, in one line.

    passes: pixels of each shape that will be trained on. The network's weights, gradients and statistics are as before.
    """
    kept = [buffer.clone() for buffer in network.buffers()]
    try:
        compile_blocks(network, backend)
        for pixels in passes:
            _try(network, pixels, precision)
    except Exception as error:  # a compiler fails in any way: none there, a broken one, no memory, a file system
        restore_blocks(network)
        torch.compiler.reset()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        return complaint(error)
    finally:
        for buffer, own in zip(network.buffers(), kept, strict=True):
            buffer.copy_(own)
    return None


def complaint(error: Exception) -> str:
    """An error of a compiler or of a recording in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:MOST_WORDS]


def _try(network: nn.Module, pixels: Tensor, precision: str) -> None:
    """One pass whose gradients are thrown away; those of the parameters, and DDP's buckets, never see it."""
    with autocast(pixels.device, precision):
        logits = network(pixels)
    torch.autograd.grad(logits.float().sum(), [p for p in network.parameters() if p.requires_grad])


def _blocks(network: nn.Module) -> list[BasicBlock | Bottleneck]:
    return [block for block in network.modules() if isinstance(block, BasicBlock | Bottleneck)]


def _in_training(block: nn.Module, compiled: Callable[[Tensor], Tensor], plain: Callable[[Tensor], Tensor]) -> Any:
    return lambda x: compiled(x) if block.training and torch.is_grad_enabled() else plain(x)
