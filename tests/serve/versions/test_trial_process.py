"""A version tried in a process of its own: good, bad, killed, without memory."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from serve.settings import Args
from serve.versions import trial_process
from serve.versions.traffic import Version


def version(place: Path) -> Version:
    return Version(version="5", checkpoint=str(place))


def test_a_good_version_passes(cifar: Path):
    assert trial_process.tried(version(cifar), Args(checkpoint=str(cifar))) is None


def test_a_damaged_one_is_refused_in_the_reader_s_words(cifar: Path, tmp_path: Path):
    shutil.copytree(cifar, tmp_path / "bad")
    (tmp_path / "bad" / "model.safetensors").write_bytes(b"damaged")
    refused = trial_process.tried(version(tmp_path / "bad"), Args(checkpoint=str(cifar)))
    assert refused is not None
    assert "is damaged" in refused


def test_one_that_ends_its_process_is_refused_by_the_signal(imagenet: Path):
    def kill() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.Error):
                    if "serve.versions.trial_process" in child.cmdline():
                        child.kill()
                        return
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    refused = trial_process.tried(version(imagenet), Args(checkpoint=str(imagenet)))
    killer.join()
    assert refused == "the process that tried it was ended by SIGKILL, as the kernel does where memory ends"


def test_one_that_takes_too_long_is_refused(cifar: Path):
    refused = trial_process.tried(version(cifar), Args(checkpoint=str(cifar)), seconds=0.3)
    assert refused == "it was not loaded within 0.3 seconds"


CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory"))
INSIDE = """
import os, sys
from pathlib import Path
Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
from serve.settings import Args
from serve.versions import trial_process
from serve.versions.traffic import Version
place = sys.argv[2]
print(trial_process.tried(Version(version="5", checkpoint=place), Args(checkpoint=place, batch=1, precision="float32")))
"""


def limited_group(limit: int) -> Path | None:
    """A control group with a limit of memory, where this user may make one."""
    for root, name in zip(CGROUPS, ("memory.max", "memory.limit_in_bytes"), strict=True):
        group = root / f"resnet-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / name).exists():  # else this is no file system of groups, or one without memory
                (group / name).write_text(str(limit))
                return group
            group.rmdir()
        except OSError:
            group.rmdir()
    return None


def test_where_memory_ends_the_kernel_ends_the_trial_and_not_who_asked(tmp_path: Path):
    """A real network, of which loading takes some 700 MiB, in a control group of 256 MiB."""
    from tests.serve.conftest import write_checkpoint

    group = limited_group(256 * 2**20)
    if group is None:
        pytest.skip("no control group with a limit of memory can be made here")
    try:
        place = write_checkpoint(tmp_path / "r50", "imagenet-resnet50-B", 64, 10)
        command = [sys.executable, "-c", INSIDE, str(group), str(place)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        assert f"ended by {signal.Signals.SIGKILL.name}, as the kernel does where memory ends" in done.stdout
    finally:
        deadline = time.monotonic() + 10
        while group.exists() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                group.rmdir()
            time.sleep(0.1)
