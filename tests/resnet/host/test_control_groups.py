"""Folders of control groups from files as the kernel writes them."""

from pathlib import Path

import pytest

from resnet.host.control_groups import control_groups, lines_of


@pytest.mark.parametrize(
    ("groups", "root", "below"),
    [
        ("0::/a/b\n", "/", ["a/b", "a", ""]),
        ("0::/kubepods/pod1/abc\n", "/kubepods/pod1/abc", [""]),  # its own group alone is mounted
        ("0::/\n", "/", [""]),
    ],
)
def test_version_2_has_its_own_group_and_those_above(tmp_path: Path, groups: str, root: str, below: list[str]) -> None:
    top = tmp_path / "mount"
    (tmp_path / "cgroup").write_text(groups)
    (tmp_path / "mountinfo").write_text(f"31 23 0:27 {root} {top} rw - cgroup2 cgroup2 rw\n")
    assert list(control_groups("cpu", tmp_path)) == [top / name for name in below]


def test_version_1_has_a_mount_for_each_controller(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("4:cpu,cpuacct:/x\n5:memory:/y\n")
    (tmp_path / "mountinfo").write_text(
        "33 24 0:29 / /with\\040blank rw - cgroup cgroup rw,cpu,cpuacct\n34 24 0:30 / /m rw - cgroup cgroup rw,memory\n"
    )
    assert list(control_groups("cpu", tmp_path)) == [Path("/with blank/x"), Path("/with blank")]
    assert list(control_groups("memory", tmp_path)) == [Path("/m/y"), Path("/m")]
    assert list(control_groups("pids", tmp_path)) == []


def test_another_system_has_none(tmp_path: Path) -> None:
    assert list(control_groups("cpu", tmp_path / "absent")) == []
    assert lines_of(tmp_path / "absent") == []
