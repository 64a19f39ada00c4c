"""Every program of ours whose reader has gone ends without a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = {
    "resnet.paper": ["-m", "resnet.paper"],
    "image kinds": ["-m", "resnet.images.checks.image_kinds"],
    "resnet-ray": ["-m", "resnet_ray"],
    "resnet-ray train": ["-m", "resnet_ray", "train", "--help"],
    "resnet-ray --version": ["-m", "resnet_ray", "--version"],
    "haproxy": ["-m", "serve.haproxy"],
    "a job": ["jobs/write_shards.py", "--help"],
    "an outcome": ["-c", "from pipelines.command_line import run_job; run_job(lambda argv: {'outcome': 'x' * 100})"],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_closed_reader_is_no_error(name: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)  # before the first line: `| true`
    command = [sys.executable, *PROGRAMS[name]]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    os.close(writer)
    assert "Traceback" not in done.stderr
    assert "BrokenPipeError" not in done.stderr
    assert done.returncode == (2 if name == "haproxy" else 0)  # which is told a folder, or says so
