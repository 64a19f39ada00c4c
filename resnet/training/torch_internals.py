"""Everything of torch that is private, in one place, each with what it buys and a fallback that works without it.

RESNET_WITHOUT_INTERNALS=1 forces the fallbacks. What has no replacement in torch's public interface is kept here so
that a new version is met in one file; a test names what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WITHOUT = "RESNET_WITHOUT_INTERNALS"
PRIVATE_NAMES = {
    "torch._foreach_sub": "the average of the weights of ResNet-50 in 3 launches instead of 320",
    "torch._foreach_mul_": "the same",
    "torch._foreach_add_": "the same",
    "torch._foreach_copy_": "the counters of its batch norms in one launch instead of 53",
    "torch.cpu._is_avx512_bf16_supported": "bfloat16 where the processor multiplies it, also where /proc is not there",
    "torch.cpu._is_amx_tile_supported": "the same",
    "torch._dynamo.config": "152 layers with images of several sizes are compiled to the end",
}


def _named(name: str) -> Any | None:
    """The object of a private name of torch, or None where torch lacks it or fallbacks are forced."""
    if os.environ.get(WITHOUT) == "1":
        return None
    assert name in PRIVATE_NAMES
    found: Any = torch
    for part in name.split(".")[1:]:
        found = getattr(found, part, None)
        if found is None:
            return None
    return found


def missing_torch_names() -> list[str]:
    """The private names that the installed torch lacks."""
    return [name for name in PRIVATE_NAMES if _named(name) is None]


@torch.no_grad()
def move_towards(averages: Sequence[Tensor], weights: Sequence[Tensor], share: float | Tensor) -> None:
    """averages += share (weights - averages), all tensors at once where torch can."""
    subtract, multiply, add = (_named(f"torch._foreach_{name}") for name in ("sub", "mul_", "add_"))
    if subtract is None or multiply is None or add is None:
        for average, weight in zip(averages, weights, strict=True):
            average += (weight - average) * share
        return
    difference = subtract(list(weights), list(averages))
    multiply(difference, share)
    add(list(averages), difference)


@torch.no_grad()
def copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Each target becomes its source, all at once where torch can."""
    copy = _named("torch._foreach_copy_")
    if copy is not None and targets:
        copy(list(targets), list(sources))
        return
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def multiplies_bfloat16() -> bool:
    """True if this CPU has instructions for products of bfloat16: AVX512-BF16 or AMX."""
    vectors, tiles = (_named(f"torch.cpu.{name}") for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    if vectors is not None and tiles is not None:
        return bool(vectors() or tiles())
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def allow_recompilations(count: int) -> None:
    """Let torch.compile make at least so many versions of a function; without it torch gives up after 8."""
    settings = _named("torch._dynamo.config")
    if settings is not None:
        settings.recompile_limit = max(count, settings.recompile_limit)
