"""The border between a command line and typed objects, as a shell sees it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("job", sorted(path.stem for path in (ROOT / "jobs").glob("*_*.py") if path.stem != "__init__"))
def test_help_that_is_cut_off_by_head_ends_quietly(job: str) -> None:
    command = f"set -o pipefail; {sys.executable} jobs/{job}.py --help | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage")


def test_a_mistake_is_one_sentence_and_status_2() -> None:
    command = [sys.executable, "jobs/train_imagenet.py", "cifar10-resnet9"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "resnet9" in done.stderr
