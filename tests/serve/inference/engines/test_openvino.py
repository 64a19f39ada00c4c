"""A process that has changed its version hears signals. The numbers of OpenVINO: test_choose.py."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
# Two versions, of which the older goes first, as where a replica takes over a new one; then all are gone.
CODE = """
import os, signal, torch
from resnet.networks.resnet import build
from serve.inference.classifier import folded
from serve.inference.engines.openvino import OpenVINO
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
images = torch.zeros(1, 3, 32, 32)
first, second = (OpenVINO(folded(build("cifar10-resnet8", 10), torch.float32), images, 1) for _ in range(2))
del first
os.kill(os.getpid(), signal.SIGTERM)
del second
os.kill(os.getpid(), signal.SIGTERM)
print(len(heard))
"""


@pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed: .venv/bin/uv pip install openvino"
)
def test_signals_are_heard_after_a_change_of_version() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
