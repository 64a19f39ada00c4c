"""Credentials of the submitting shell reach the job, and nothing else: no record, log, upload or command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.job_notice import NOTIFY
from pipelines.tracking import job_environment
from pipelines.tracking.mlflow_store import CREDENTIALS

ROOT = Path(__file__).resolve().parents[3]


SECRET = "hunter2-of-this-test-alone"


# What the job finds: the secret in its environment, and the files of Ray's folder that hold it. Its own folder, the
# upload, lies in there. The secret itself is no word of the command.
JOB = """
import json, os, pathlib
secret = os.environ["MLFLOW_TRACKING_PASSWORD"].encode()
folder = pathlib.Path(os.environ["RAY_AUTH_TOKEN_PATH"]).parent
files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
assert any(path.name == "marker.txt" for path in files), "the upload is among them"
held = [str(path) for path in files if secret in path.read_bytes()]
words = [p for p in pathlib.Path("/proc").glob("[0-9]*/cmdline")]
told = []
for word in words:
    try:
        told += [str(word)] if secret in word.read_bytes() else []
    except OSError:
        pass
print(json.dumps({"length": len(secret), "files": len(files), "held": held, "told": told}))
"""


@pytest.mark.slow
def test_a_job_of_a_head_of_its_own_has_them_and_rays_files_have_not(tmp_path: Path) -> None:
    (tmp_path / "marker.txt").write_text("of the upload")
    (tmp_path / "job.py").write_text(JOB)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = clean | dict.fromkeys(CREDENTIALS, SECRET) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipelines.cluster", "--", "python", "job.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith('{"length"'))
    found = json.loads(line)
    assert found["length"] == len(SECRET)
    assert found["files"] > 10
    assert (found["held"], found["told"]) == ([], [])
    assert SECRET not in done.stdout + done.stderr


def test_what_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*CREDENTIALS, NOTIFY):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    monkeypatch.setenv("UNRELATED_TOKEN", SECRET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESNET_HOME", str(tmp_path))
    private, shared = job_environment.passed_on(True, here=True), job_environment.passed_on(False, here=False)
    assert SECRET not in private.values(), "the head inherits them"
    assert {name for name, value in shared.items() if value == SECRET} == {*CREDENTIALS, NOTIFY}
    assert (private["RESNET_HOME"], shared.get("RESNET_HOME")) == (str(tmp_path), None), "a place of this machine"
    assert private["MLFLOW_EXPERIMENT_NAME"] == "mine"
    assert private["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/mlflow.db"
