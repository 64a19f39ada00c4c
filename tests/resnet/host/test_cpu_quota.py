"""Cores by the container's quota: the kernel's files of both versions, and a real control group where there is one."""

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from resnet.host import cpu_quota

V1 = Path("/sys/fs/cgroup/cpu")
V2 = Path("/sys/fs/cgroup")
HOST = "31 23 0:27 / {top} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def proc(folder: Path, groups: str, mounts: str) -> Path:
    (folder / "cgroup").write_text(groups)
    (folder / "mountinfo").write_text(mounts)
    return folder


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("own", "above", "expected"),
    [
        ("150000 100000", "max 100000", 1.5),
        ("max 100000", "max 100000", None),
        ("400000 100000", "50000 100000", 0.5),  # what a group lies in holds for it
        ("max 100000", "200000 50000", 4.0),
        ("", "", None),  # an empty file: a kernel that is being torn down
    ],
)
def test_version_2_and_the_groups_above(tmp_path: Path, own: str, above: str, expected: float | None) -> None:
    top = tmp_path / "mount"
    write(top / "system.slice", cpu__max=above)
    write(top / "system.slice" / "job.service", cpu__max=own)
    here = proc(tmp_path, "0::/system.slice/job.service\n", HOST.format(top=top))
    assert cpu_quota.cpu_quota(here) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", None), ("250000", 2.5), ("5000", 0.05)])
def test_version_1(tmp_path: Path, quota: str, expected: float | None) -> None:
    top = tmp_path / "cpu,cpuacct"
    write(top / "docker" / "abc", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    mounts = (
        f"33 24 0:29 / {top} rw - cgroup cgroup rw,cpu,cpuacct\n34 24 0:30 / /elsewhere rw - cgroup cgroup rw,cpuset\n"
    )
    here = proc(tmp_path, "4:cpu,cpuacct:/docker/abc\n3:cpuset:/docker/abc\n", mounts)
    assert cpu_quota.cpu_quota(here) == expected


@pytest.mark.parametrize(
    ("group", "root"),
    [
        ("/docker/abc", "/docker/abc"),  # Docker on version 1 shows the group's own folder, the path is the host's
        ("/", "/"),  # a namespace of control groups, the default on version 2
        ("/../../kubepods/pod1", "/"),  # a process that was moved in from outside of its namespace
        ("/docker/abc", "/docker/abc/.."),
    ],
)
def test_a_container_sees_its_own_group(tmp_path: Path, group: str, root: str) -> None:
    top = tmp_path / "with space"
    write(top, cpu__max="300000 100000")
    shown = str(top).replace(" ", r"\040")
    here = proc(tmp_path, f"0::{group}\n", f"31 23 0:27 {root} {shown} ro - cgroup2 cgroup rw\n")
    assert cpu_quota.cpu_quota(here) == 3.0


def test_cores_are_whole_and_at_least_one(tmp_path: Path) -> None:
    top, allowed = tmp_path / "mount", len(os.sched_getaffinity(0))
    here = proc(tmp_path, "0::/\n", HOST.format(top=top))
    for quota, expected in (("10000", 1), ("199999", 1), ("100000000", allowed), ("max", allowed)):
        write(top, cpu__max=f"{quota} 100000")
        assert cpu_quota.usable_cores(here) == expected
    assert cpu_quota.usable_cores(tmp_path / "no such folder") == allowed  # another system


def test_affinity_counts() -> None:
    """As `taskset`, Slurm and Docker's --cpuset-cpus set it."""
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from resnet.host.cpu_quota import usable_cores; print(usable_cores())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"1\n"


@pytest.fixture
def real_group() -> Iterator[Path]:
    """A control group of this test's own with a quota of one core and a half."""
    first, name = (V1, "cpu.cfs_quota_us") if (V1 / "cpu.cfs_quota_us").exists() else (V2, "cpu.max")
    folder = first / f"resnet-test-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        if not (folder / name).exists():
            pytest.skip("the control group takes no quota for CPUs")
        (folder / name).write_text("150000" if first == V1 else "150000 100000")
        yield folder
    finally:
        folder.rmdir()


def test_a_real_control_group(real_group: Path) -> None:
    """The quota of a group that a process has joined is found; torch's threads and HAProxy's follow it."""
    code = (
        f"import os; open({str(real_group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()));"
        "from resnet.host.cpu_quota import cpu_quota, usable_cores; print(cpu_quota(), usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1.5", "1"]


def test_nothing_else_counts_the_machine_s_cores() -> None:
    root = Path(__file__).resolve().parents[3]
    sources = [
        path
        for package in ("resnet", "pipelines", "serve", "jobs", "benchmarks")
        for path in (root / package).rglob("*.py")
    ]
    counting = [path.name for path in sources if re.search(r"cpu_count\(|sched_getaffinity\(0\)\) ", path.read_text())]
    assert counting == ["cpu_quota.py"]
