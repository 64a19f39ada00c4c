"""Claim: from `ray job submit` to the first training step it takes less than 15 s where a Ray head runs.

    python benchmarks/training/startup.py --out results/startup.json

A head is started on this machine; then the demonstration (ResNet-20, two workers, embedded digits) is submitted
a few times, as `make train` does it, and stopped at its first step. The phases are read from outside: when the job's
processes came to life, and when rank 0 posted its first step. The last line on stdout is the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from pipelines import provenance
from pipelines.cluster import private_ray, ray_internals
from pipelines.progress import postings
from resnet.host.hardware import describe_hardware

ROOT = Path(__file__).resolve().parents[2]
JOB = "jobs/train_imagenet.py"
RUN = "cifar10-resnet20-A.s0"
# A phase ends when the first process with such a title is there; the last one with the first step.
PHASES = (
    ("submitted", JOB),  # the command line, the upload of the working folder, the job's supervisor
    ("driver", "ray::TrainController"),  # imports, connection, the data are decoded
    ("controller", "ray::RayTrainWorker"),  # Ray Train's own actors
)
PATIENCE = 180.0


def births(root: psutil.Process, since: float) -> dict[str, float]:
    """When the first process of each title was seen, by title; of processes younger than `since`."""
    found: dict[str, float] = {}
    for process in root.children(recursive=True):
        try:
            words = process.cmdline()
            if process.create_time() < since or (words and "submit" in words):
                continue
            for _, title in PHASES:
                if any(word.startswith(title) for word in words[:2]):
                    found.setdefault(title, time.time())
        except psutil.Error:
            continue  # it has just ended
    return found


def once(storage: Path) -> dict[str, float]:
    """Seconds of each phase, and of all."""
    postings.forget(RUN)
    root, seen = psutil.Process(), {}
    words = ["-m", "pipelines.cluster", "--", "python", JOB, "--scaling.workers", "2", "--no-promote"]
    began = time.time()
    with open(storage.with_suffix(".log"), "w") as log:
        words = [sys.executable, *words, "--storage", str(storage)]
        job = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    while (status := postings.last_status(RUN)) is None:
        assert job.poll() is None, f"the job ended: {Path(log.name).read_text()[-2000:]}"
        assert time.time() < began + PATIENCE, f"no step: {Path(log.name).read_text()[-2000:]}"
        if len(seen) < len(PHASES):
            seen = births(root, began) | seen
        time.sleep(0.05)
    assert status.step >= 1
    ends = [*(seen[title] for _, title in PHASES), time.time()]
    names = [*(name for name, _ in PHASES), "workers"]
    _stop(job)
    return dict(zip(names, (b - a for a, b in zip([began, *ends], ends, strict=False)), strict=True)) | {
        "submit_to_first_step_s": ends[-1] - began
    }


def _stop(job: subprocess.Popen[bytes]) -> None:
    """End the command line and the job that it has submitted."""
    from ray.job_submission import JobStatus, JobSubmissionClient

    client = JobSubmissionClient(os.environ["DASHBOARD"])
    for found in client.list_jobs():
        if found.submission_id and found.status == JobStatus.RUNNING:
            client.stop_job(found.submission_id)
            while not client.get_job_status(found.submission_id).is_terminal():
                time.sleep(0.2)
    job.send_signal(signal.SIGTERM)
    job.wait(timeout=60)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4, help="jobs, one after the other")
    parser.add_argument("--out", help="file for the result, too")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="startup-", ignore_cleanup_errors=True) as folder:
        os.environ["RESNET_HOME"] = folder
        context = private_ray.start_private(
            include_dashboard=True, dashboard_host="127.0.0.1", object_store_memory=2**29
        )
        os.environ["RAY_ADDRESS"] = os.environ["DASHBOARD"] = f"http://{context.address_info['webui_url']}"
        ray_internals.await_agent(context.address_info["node_id"])
        each: list[dict[str, float]] = []
        for number in range(words.repeats):
            each.append(once(Path(folder) / f"run-{number}"))
            print({name: round(seconds, 1) for name, seconds in each[-1].items()}, file=sys.stderr, flush=True)
    result: dict[str, Any] = {name: round(statistics.median(row[name] for row in each), 2) for name in each[0]}
    result |= {"command": f"benchmarks/training/startup.py {' '.join(sys.argv[1:])}", "commit": provenance.git_commit()}
    result |= {"hardware": describe_hardware(), "each": each}
    if words.out:
        Path(words.out).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
