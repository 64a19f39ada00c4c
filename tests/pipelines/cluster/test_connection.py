"""The cluster of a job: the one that RAY_ADDRESS names, and none where only a running one is asked for."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.cluster.connection import ALONE, may_grow

ROOT = Path(__file__).resolve().parents[3]
JOB = """
import json
from pipelines.cluster.connection import connect
found = connect(only_running=True)
print(json.dumps(found), flush=True)
"""


def connected(**variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", JOB]
    return subprocess.run(command, env=kept | variables, capture_output=True, text=True, cwd=ROOT, check=False)


def test_a_job_joins_the_cluster_that_is_named(ray_local: Any) -> None:
    done = connected(RAY_ADDRESS=ray_local.address_info["gcs_address"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["CPU"] == 4.0


def test_only_a_running_cluster_is_joined_where_that_is_asked(tmp_path: Path) -> None:
    done = connected(RAY_TMPDIR=str(tmp_path))  # where `ray start` would have left its address
    assert done.returncode == 1
    assert "RAY_ADDRESS must name a running Ray, or `ray start --head` must run on this machine" in done.stderr


def test_a_private_ray_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALONE, "1")
    assert not may_grow()
    monkeypatch.delenv(ALONE)
    assert may_grow()
