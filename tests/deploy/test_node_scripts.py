"""deploy/node.sh and deploy/services.sh as a machine runs them: what Ray inherits, what runs beside it."""

import os
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("RAY_AUTH_MODE", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "MLFLOW_TRACKING_URI",
         "RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_HAPROXY_BINARY_PATH", "RAY_object_spilling_directory",
         "RESNET_BUCKET", "VIRTUAL_ENV")  # fmt: skip


def bash(script: str, home: Path, **variables: str) -> str:
    """What a script prints, in a home of its own."""
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        ["bash", "-c", script], env=clean | {"HOME": str(home)} | variables, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def inherited(home: Path, **variables: str) -> dict[str, str]:
    """What a process gets that is started after node.sh."""
    text = bash(f"source {ROOT}/deploy/node.sh && env -0", home, **variables)
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)


def test_a_machine_with_nothing_of_its_own_gets_token_interface_and_haproxy(tmp_path: Path) -> None:
    got = inherited(tmp_path)
    assert got["RAY_AUTH_MODE"] == "token"
    assert got["VIRTUAL_ENV"] == str((ROOT / ".venv").resolve()) or got["VIRTUAL_ENV"] == str(ROOT / ".venv")
    route = subprocess.run(["ip", "-o", "route", "get", "1"], capture_output=True, text=True, check=False).stdout
    if " dev " in route:
        assert got["GLOO_SOCKET_IFNAME"] == route.partition(" dev ")[2].split()[0] != "lo"
        assert got["NCCL_SOCKET_IFNAME"] == f"={got['GLOO_SOCKET_IFNAME']}", "the name itself, not a prefix"
    assert "MLFLOW_TRACKING_URI" not in got or got["MLFLOW_TRACKING_URI"] == ""
    assert got["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert os.access(got["RAY_SERVE_HAPROXY_BINARY_PATH"], os.X_OK)
    assert got["RAY_SERVE_HAPROXY_BINARY_PATH"].startswith(str(tmp_path))


def test_values_of_the_cluster_reach_every_process(tmp_path: Path) -> None:
    (tmp_path / "resnet-node.env").write_text("RESNET_BUCKET=s3://pictures\nRESNET_IDLE_MINUTES=60\n")
    assert inherited(tmp_path, RAY_HEAD_IP="10.0.0.7")["MLFLOW_TRACKING_URI"] == "http://10.0.0.7:5000"
    (tmp_path / "resnet-node.env").write_text("RESNET_BUCKET=s3://pictures\nMLFLOW_TRACKING_URI=http://ours:5000\n")
    got = inherited(tmp_path, RAY_HEAD_IP="10.0.0.7")
    assert (got["MLFLOW_TRACKING_URI"], got["RESNET_BUCKET"]) == ("http://ours:5000", "s3://pictures")


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="/dev/shm is no mount here")
def test_objects_spill_to_a_local_disk_where_there_is_one(tmp_path: Path) -> None:
    assert "RAY_object_spilling_directory" not in inherited(tmp_path, RESNET_LOCAL_DISK=str(tmp_path))  # no mount
    got = inherited(tmp_path, RESNET_LOCAL_DISK="/dev/shm")
    try:
        assert got["RAY_object_spilling_directory"] == "/dev/shm/ray-spill"
        assert Path("/dev/shm/ray-spill").is_dir()
    finally:
        Path("/dev/shm/ray-spill").rmdir()


def test_services_run_once_each_and_end_where_there_is_nothing_to_do(tmp_path: Path) -> None:
    nowhere = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1", "GCE_METADATA_HOST": "127.0.0.1:1"}
    log = tmp_path / "resnet-services" / "notices.log"
    bash(f"bash {ROOT}/deploy/services.sh worker", tmp_path, **nowhere)
    deadline = time.monotonic() + 60
    while not (log.exists() and "no notice can come" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert sorted(path.name for path in log.parent.iterdir()) == ["notices.lock", "notices.log"]
