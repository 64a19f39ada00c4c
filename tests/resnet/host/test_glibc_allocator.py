"""The variables by which a process keeps its memory."""

import os
import platform
import subprocess
import sys

import pytest

from resnet.host import glibc_allocator

# As a training step does: many tensors are made in a thread, and all of them are freed.
STEPS = """
import resource, threading
import numpy as np

def step():
    for array in [np.empty(2**23, np.uint8) for _ in range(16)]:
        array[::4096] = 1

def steps():
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=steps)
thread.start()
thread.join()
"""


KEEP = "from resnet.host import glibc_allocator as memory\nmemory.keep()\n"


def faults(kept: dict[str, str], begin: str = "") -> int:
    """Page faults of four steps, for 512 MiB; of 4 KiB each, or less."""
    command = [sys.executable, "-c", begin + STEPS]
    return int(subprocess.run(command, env=os.environ | kept, capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc: it takes no notice")
def test_a_thread_takes_its_memory_once() -> None:
    assert faults({}) > 10_000
    assert faults(glibc_allocator.KEPT) < 1_000
    assert faults({}, KEEP) < 1_000
