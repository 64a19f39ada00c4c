"""Hosts that users have, rows 24 to 27, 48, 50 and 62 and what users of Ray report: a private Ray works there.

The rows' sentences are held by the tests that tests/real_world/rows.py names. Here a small job, a connection and a task
on it, runs where its kind of host can be pretended cheaply. Whole jobs on each of them, heads with and without a token,
and every job's ends are in benchmarks/reliability/hosts.py, which takes an hour.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
JOB = """
import json, os
from pipelines.cluster.connection import connect
found = connect()
import ray
import ray.train  # looks for a home folder when it is imported
where = ray.get(ray.remote(lambda: os.environ["HOME"]).remote())
print(json.dumps({"cpus": found["CPU"], "home": where, "got": ray.get(ray.put(b"x" * 2**20))[:1].decode()}))
"""
CAPABILITY = "+dac_read_search"  # the interpreter may lie where only root looks
STRANGER = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"]
STRANGER += ["--inh-caps", CAPABILITY, "--ambient-caps", CAPABILITY]
OFFLINE = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
LITTLE = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=64m none /dev/shm && exec "$@"', "sh"]
PROXIES = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY"), "http://127.0.0.1:9")
NEEDS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root may pretend this host")
HOSTS = [
    # row 26, ray#30959: a container of OpenShift; /tmp/ray is another user's, too (ray#4593)
    pytest.param(STRANGER, {}, ("HOME",), id="no passwd entry and no HOME", marks=NEEDS_ROOT),
    # row 26, ray#13090 and ray#37757: a company's proxy, which knows nothing of this machine's loopback
    pytest.param([], PROXIES, (), id="http_proxy"),
    # ray#7724 and verl#1120: Slurm's own temporary folder, longer than a socket's path
    pytest.param([], {"TMPDIR": "LONG"}, (), id="a long TMPDIR"),
    # a laptop on a train: no interface but loopback
    pytest.param(OFFLINE, {}, (), id="no network", marks=NEEDS_ROOT),
    # ray#13619: Docker's default
    pytest.param(LITTLE, {}, (), id="64 MiB of shared memory", marks=NEEDS_ROOT),
    # a login node
    pytest.param(["sh", "-c", 'ulimit -n 512 && exec "$@"', "sh"], {}, (), id="512 open files"),
]


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="w-", dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def on(host: list[str], place: Path, variables: dict[str, str], without: tuple[str, ...] = ()) -> dict[str, object]:
    """What the job prints on a host."""
    dropped = ("RAY_", "MLFLOW_", "RESNET_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    kept |= {"HOME": str(place), "PYTHONPATH": str(ROOT), "RESNET_HOME": str(place / "home"), **variables}
    kept = {name: value for name, value in kept.items() if name not in without}
    done = subprocess.run(
        [*host, sys.executable, "-c", JOB], env=kept, cwd=place, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("host", "variables", "without"), HOSTS)
def test_a_private_ray_runs_there(
    host: list[str], variables: dict[str, str], without: tuple[str, ...], place: Path
) -> None:
    if variables.get("TMPDIR") == "LONG":
        variables = {"TMPDIR": str(place / ("l" * 100))}
        Path(variables["TMPDIR"]).mkdir()
    found = on(host, place, variables, without)
    assert found["got"] == "x"
    assert found["home"] == (f"{place}/home" if "HOME" in without else str(place))


@pytest.fixture
def half_a_core() -> Iterator[list[str]]:
    """A prefix: the command runs in a control group with half a core, as by `docker run --cpus 0.5`."""
    first = Path("/sys/fs/cgroup/cpu")
    old = (first / "cpu.cfs_quota_us").exists()
    group = (first if old else first.parent) / f"resnet-row-{uuid.uuid4().hex[:6]}"
    try:
        group.mkdir()
        (group / ("cpu.cfs_quota_us" if old else "cpu.max")).write_text("50000" if old else "50000 100000")
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    for _ in range(60):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.5)


@pytest.mark.slow
def test_half_a_core_is_one_cpu_to_ray(half_a_core: list[str], place: Path) -> None:
    """Row 25. Ray 2.60 itself makes 0 CPUs of it, on which nothing is ever scheduled."""
    assert on(half_a_core, place, {})["cpus"] == 1


def test_taskset_counts_for_ray(place: Path) -> None:
    """Row 25. Ray asks for the machine's cores, Slurm gives a job some of them."""
    core = str(min(os.sched_getaffinity(0)))
    assert on(["taskset", "-c", core], place, {})["cpus"] == 1
