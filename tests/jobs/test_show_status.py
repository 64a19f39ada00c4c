"""jobs/show_status.py against a running Ray, and where there is none."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

JOB = Path(__file__).resolve().parents[2] / "jobs" / "show_status.py"


def run(tmp_path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    known |= {"RESNET_HOME": str(tmp_path), "RAY_TMPDIR": str(tmp_path)} | environment
    return subprocess.run([sys.executable, str(JOB), *words], env=known, capture_output=True, text=True, timeout=120)


def test_without_a_cluster_it_says_what_is_missing(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("show_status.py: RAY_ADDRESS must name a running Ray")
    assert "Traceback" not in done.stderr


def test_it_shows_a_running_cluster(ray_local: Any, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    done = run(tmp_path, **(environment | {"RAY_ADDRESS": ray_local.address_info["gcs_address"]}))
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert (seen["nodes"], seen["resources"]["CPU"]) == (1, 4)
    assert "1 node, " in done.stderr
