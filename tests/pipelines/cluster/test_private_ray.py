"""A private Ray ends with its process, however that ends: no process, no port and no folder is left."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[3]
MARK = "RESNET_TEST_MARK"  # all processes of a private Ray inherit it
JOB = """
import sys, time
from pipelines.cluster.connection import connect
connect(dashboard="dashboard" in sys.argv)
print("connected", flush=True)
time.sleep(600)
"""
STATUS = {"SIGHUP": 129, "SIGTERM": 143, "SIGKILL": -9, "SIGINT": 1}  # a job makes 130 of it


def processes_of(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def left(mark: str, patience: float = 30.0) -> list[str]:
    """Command lines of what is left after a while."""
    deadline = time.monotonic() + patience
    while (there := processes_of(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [" ".join(process.cmdline()) for process in there]


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="p-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("name", "times", "group", "words"),
    [
        ("SIGHUP", 1, False, ()),
        ("SIGTERM", 1, False, ("dashboard",)),
        ("SIGINT", 3, True, ()),
        ("SIGKILL", 1, False, ()),
    ],
)
def test_nothing_is_left(name: str, times: int, group: bool, words: tuple[str, ...], place: Path) -> None:
    """SIGINT comes as from an impatient person at a terminal: several times, to the whole group."""
    mark = uuid.uuid4().hex
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    kept |= {MARK: mark, "TMPDIR": str(place), "PYTHONPATH": str(ROOT)}
    job = subprocess.Popen(
        [sys.executable, "-c", JOB, *words], env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert job.stdout is not None
    assert job.stdout.readline() == "connected\n"
    listening = [c for p in processes_of(mark) for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
    assert {c.laddr[0] for c in listening} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    (folder,) = place.glob("resnet-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "token").stat().st_mode & 0o777 == 0o600
    for i in range(times):
        time.sleep(0.5 if i else 0)
        os.killpg(job.pid, getattr(signal, name)) if group else job.send_signal(getattr(signal, name))
    job.communicate(timeout=60)
    assert job.returncode == STATUS[name]
    assert left(mark) == []
    if name == "SIGKILL":
        code = "from resnet.host.temporary_folder import own_folder; own_folder('resnet-')"
        subprocess.run([sys.executable, "-c", code], env=kept, check=True)
    assert list(place.iterdir()) == []


WITH_ENVIRONMENT = """
import os, ray
from pipelines.cluster.private_ray import start_private
start_private()
told = ray.remote(lambda: os.environ["GIVEN"]).options(runtime_env={"env_vars": {"GIVEN": "here"}}).remote()
print(ray.get(told, timeout=60))
"""


def test_workers_start_by_a_python_whose_path_has_a_space(place: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "my env"], check=True)
    (packages,) = (place / "my env" / "lib").glob("python*/site-packages")
    (packages / "shared.pth").write_text(f"{Path(psutil.__file__).parent.parent}\n")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    kept |= {"TMPDIR": str(place), "PYTHONPATH": str(ROOT)}
    command = [place / "my env" / "bin" / "python", "-c", WITH_ENVIRONMENT]
    done = subprocess.run(command, env=kept, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "here\n"), done.stderr
