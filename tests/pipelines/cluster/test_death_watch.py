"""A job whose own Ray is killed ends with a sentence; one that ends Ray itself does not hear of it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# A job with a child of the name of Ray's raylet, and with a Ray that says that it runs until it was ended.
JOB = """
import subprocess, sys, time, types
import pipelines.command_line as command_line
from pipelines.cluster import death_watch

ray = types.ModuleType("ray")
ray.is_initialized = lambda: ray.runs
ray.runs = True
sys.modules["ray"] = ray

def job(argv):
    child = subprocess.Popen([argv[0], "60"])
    death_watch.watch_private()
    time.sleep(0.3)
    ray.runs = argv[1] == "runs"
    child.kill()
    time.sleep(1.5)
    return {"ended": "by itself"}

command_line.run_job(job, "the same command goes on where it stopped")
"""


@pytest.mark.parametrize("runs", ["runs", "ended"])
def test_a_lost_ray_is_a_sentence_and_one_that_was_ended_is_not(runs: str, tmp_path: Path) -> None:
    raylet = tmp_path / "raylet"
    raylet.symlink_to("/bin/sleep")
    words = [sys.executable, "-c", JOB, str(raylet), runs]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    if runs == "ended":
        assert (done.returncode, done.stdout) == (0, '{"ended": "by itself"}\n'), done.stderr
        return
    assert (done.returncode, done.stdout) == (1, "")
    assert "Ray on this machine has ended before its job: its node manager (process " in done.stderr
    assert done.stderr.endswith("; the same command goes on where it stopped\n")
    assert "Traceback" not in done.stderr
