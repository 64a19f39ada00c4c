"""What a result was computed on, in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe() -> str:
    """This machine's GPUs if torch sees any, else its CPU: `1 x NVIDIA H200`, `2 cores of AMD EPYC 9R14`."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{_cores()} cores of {_cpu()}"


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> str:
    """The CPU's name as Linux gives it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
