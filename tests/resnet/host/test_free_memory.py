"""What may still be taken: the tightest of machine, control groups and the process's own limit."""

import subprocess
import sys
from pathlib import Path

import pytest

from resnet.host import free_memory
from resnet.host.free_memory import FreeMemory

MEMINFO = "MemTotal:       24105000 kB\nMemFree:        1000 kB\nMemAvailable:   20000000 kB\n"


def host(folder: Path, cgroup: str) -> tuple[Path, Path]:
    """Folders as /proc and /sys/fs/cgroup of a machine."""
    proc, groups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    groups.mkdir()
    (proc / "meminfo").write_text(MEMINFO)
    (proc / "self" / "cgroup").write_text(cgroup)
    version_2 = f"31 23 0:27 / {groups} rw - cgroup2 cgroup2 rw\n"
    version_1 = f"32 23 0:28 / {groups}/memory rw - cgroup cgroup rw,memory\n"
    (proc / "self" / "mountinfo").write_text(version_2 + version_1)
    (proc / "self" / "statm").write_text("1000 10 10 1 0 10 0\n")
    return proc, groups


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_without_limits_it_is_what_the_machine_has(tmp_path: Path):
    proc, groups = host(tmp_path, "0::/\n")
    group(groups, memory__max="max\n", memory__current="5\n", memory__stat="inactive_file 1\n")
    assert free_memory.free_memory(proc) == FreeMemory(20000000 * 1024, 24105000 * 1024, "this machine")


def test_a_container_of_version_2_counts_what_the_kernel_can_drop_as_free(tmp_path: Path):
    proc, groups = host(tmp_path, "0::/kubepods/pod1/abc\n")
    group(groups, memory__max=f"{2**30}", memory__current=f"{2**29}", memory__stat="anon 1\ninactive_file 1048576\n")
    assert free_memory.free_memory(proc) == FreeMemory(2**29 + 2**20, 2**30, "its control group")


def test_the_group_above_counts_where_it_is_tighter(tmp_path: Path):
    proc, groups = host(tmp_path, "0::/a/b\n")
    group(groups / "a", memory__max=f"{2**30}", memory__current=f"{2**30 - 7}", memory__stat="inactive_file 0\n")
    group(groups / "a/b", memory__max=f"{2**30}", memory__current="0", memory__stat="inactive_file 0\n")
    found = free_memory.free_memory(proc)
    assert found is not None
    assert found.free == 7


def test_version_1_says_its_limit_elsewhere_and_a_huge_number_without_one(tmp_path: Path):
    proc, groups = host(tmp_path, "9:name=systemd:/\n4:cpu,memory:/x\n")
    stat = "inactive_file 9\ntotal_inactive_file 3\n"
    group(groups / "memory", memory__limit_in_bytes=str(2**63 - 4096), memory__usage_in_bytes="9", memory__stat=stat)
    group(groups / "memory/x", memory__limit_in_bytes="1000", memory__usage_in_bytes="400", memory__stat=stat)
    assert free_memory.free_memory(proc) == FreeMemory(603, 1000, "its control group")


def test_its_own_limit_counts():
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32));"
        "from resnet.host import free_memory; print(*free_memory.free_memory()[1:])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == f"{2**32} its own limit (ulimit -v)\n"


def test_where_nothing_is_told_there_is_nothing(tmp_path: Path):
    assert free_memory.free_memory(tmp_path) is None


@pytest.mark.parametrize(("size", "shown"), [(2**20 * 312, "312 MiB"), (2**30 * 1.94, "1.94 GiB")])
def test_sizes_for_a_person(size: float, shown: str):
    assert free_memory.gib(size) == shown
