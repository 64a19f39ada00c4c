"""The hardware of a result: the processor by name and number, and how fast it multiplies matrices."""

from __future__ import annotations

import platform
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from resnet.host.cpu_quota import usable_cores

if TYPE_CHECKING:
    import torch

SECONDS = 0.5  # of multiplying, in each precision
SIDE = {"cpu": 1024, "cuda": 4096}  # of the square matrices


def describe_hardware() -> str:
    """This machine's GPUs if torch sees any, else its CPU: `1 x NVIDIA H200`, `2 cores of AMD EPYC, family 25 ...`."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{usable_cores()} cores of {cpu()}"


def cpu() -> str:
    """`AMD EPYC, family 25 model 17 stepping 1`: a cloud sells several generations by one name."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    # One processor's block: the others are alike, but for their number
    found = dict(re.findall(r"^(model name|cpu family|model|stepping)\s*:\s*(.+)$", text.partition("\n\n")[0], re.M))
    name = found.get("model name", platform.processor() or platform.machine()).strip()
    if "cpu family" not in found:
        return name
    numbers = f"family {found['cpu family']} model {found.get('model', '?')} stepping {found.get('stepping', '?')}"
    return f"{name}, {numbers}"


def gflops(device: torch.device) -> dict[str, float]:
    """Measured speed of a matrix product by precision, in 1e9 multiplications and additions a second.

    Of one core on a CPU, by the time that the core was given, so that other work on the machine does not count; of the
    whole device on CUDA. Takes a second. Where bfloat16 is not native its figure is small, not missing.
    """
    import torch

    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
        return {name: round(_speed(device, kind), 1) for name, kind in kinds.items()}
    finally:
        torch.set_num_threads(threads)


def _speed(device: torch.device, kind: torch.dtype) -> float:
    import torch

    side = SIDE[device.type]
    a, b = (torch.ones(side, side, dtype=kind, device=device) for _ in range(2))

    def timed(products: int) -> float:
        """Seconds of so many products."""
        if device.type == "cpu":
            began = time.thread_time()
            for _ in range(products):
                torch.mm(a, b)
            return time.thread_time() - began
        torch.cuda.synchronize(device)
        began = time.monotonic()
        for _ in range(products):
            torch.mm(a, b)
        torch.cuda.synchronize(device)
        return time.monotonic() - began

    timed(1)  # lays out, compiles, wakes up
    once = max(timed(1), 1e-6)
    products = max(1, int(SECONDS / once))
    return 2e-9 * side**3 * products / max(timed(products), 1e-9)
