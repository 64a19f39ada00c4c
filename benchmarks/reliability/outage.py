"""Claim: an MLflow server that is gone for a part of a training slows nothing, and nothing is missing afterwards.

    python benchmarks/reliability/outage.py --out results/outage.json

A real `mlflow server` on a SQLite file, and a training that records to it, ResNet-8 on the embedded digits.
The server is killed after a third of the steps and started again after two thirds. Steps a second are compared before,
during and after; at the end the record is compared with the checkpoint's rows. The last line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from pipelines import provenance
from pipelines.cluster import private_ray
from pipelines.progress import postings
from pipelines.progress.status import Status
from pipelines.tracking import mlflow_runs
from pipelines.training.run_folder import TrainingOutcome
from resnet.host.hardware import describe_hardware
from resnet.training.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
RUN = "cifar10-resnet8-A.s0"
PATIENCE = 120.0


class Server:
    """`mlflow server` on a free port of the loopback interface, its store in a folder."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.folder, self.uri = folder, f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; it answers some ten seconds later."""
        words = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        words += ["--default-artifact-root", (self.folder / "artifacts").as_uri()]
        with open(self.folder / "server.log", "a") as log:
            self.process = psutil.Popen([sys.executable, "-m", "mlflow", "server", *words], stdout=log, stderr=log)

    def kill(self) -> None:
        """End it and its processes at once."""
        for process in [*self.process.children(recursive=True), self.process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def await_(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                return
            time.sleep(0.2)
        raise TimeoutError(f"no MLflow server after {PATIENCE:g} s: {self.folder}/server.log")


def watched(job: subprocess.Popen[str], server: Server) -> list[Status]:
    """The statuses of the run until its end. The server is killed after a third of the steps, and back after two."""
    seen: list[Status] = []
    away = back = False
    while job.poll() is None:
        time.sleep(0.1)
        status = postings.last_status(RUN)
        if status is None or (seen and status.step == seen[-1].step):
            continue
        seen.append(status)
        if not away and status.step > status.total / 3:
            server.kill()
            away = True
            print(f"MLflow's server is gone at step {status.step} of {status.total}", file=sys.stderr, flush=True)
        if away and not back and status.step > 2 * status.total / 3:
            server.start()
            back = True
            print(f"and started again at step {status.step}", file=sys.stderr, flush=True)
    assert back, "the training ended before the server was back"
    return seen


def pace(seen: list[Status], begin: float, end: float) -> float:
    """Median steps a second between two statuses within a part of the training."""
    part = [status for status in seen if begin < status.step / status.total <= end]
    return statistics.median((b.step - a.step) / (b.time - a.time) for a, b in pairwise(part))


def record(outcome: TrainingOutcome) -> dict[str, Any]:
    """The server's record of the run, against the rows of its checkpoint."""
    api, rows = mlflow_runs.client(), load_checkpoint(outcome.checkpoint).progress.rows
    found = api.search_runs([mlflow_runs.experiment(api)])
    history = {m: api.get_metric_history(found[0].info.run_id, m) for m in ("train_loss", "top1_error", "running/loss")}
    steps = [metric.step for metric in history["top1_error"]]
    equal = all(
        [(metric.step, metric.value) for metric in history[name]] == [(row.step, getattr(row, name)) for row in rows]
        for name in ("train_loss", "top1_error")
    )
    return {
        "mlflow_runs": len(found),
        "status": found[0].info.status,
        "epochs": len(rows),
        "epochs_recorded": len(set(steps)),
        "doubled": len(steps) - len(set(steps)),
        "equals_the_checkpoint": equal,
        "samples_between": len(history["running/loss"]),
    }


def measure(folder: Path, epochs: int) -> dict[str, Any]:
    """One training with an outage."""
    server = Server(folder)
    os.environ["MLFLOW_TRACKING_URI"] = server.uri
    context = private_ray.start_private(object_store_memory=2**28)
    environment = {**os.environ, "RAY_ADDRESS": context.address_info["gcs_address"]}
    words = [sys.executable, str(ROOT / "jobs" / "train_imagenet.py"), "cifar10-resnet8", "--no-promote"]
    words += ["--recipe.epochs", str(epochs), "--scaling.workers", "2", "--storage", str(folder / "runs")]
    server.start()
    try:
        server.await_()
        with open(folder / "job.log", "w") as log:
            job = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
            seen = watched(job, server)
        assert job.returncode == 0, (folder / "job.log").read_text()[-2000:]
        assert job.stdout is not None
        outcome = TrainingOutcome(**json.loads(job.stdout.read().splitlines()[-1]))
        server.await_()
        paces = {"before": pace(seen, 0.05, 1 / 3), "during": pace(seen, 1 / 3, 2 / 3), "after": pace(seen, 2 / 3, 1)}
        return {"steps_per_s": {name: round(value, 2) for name, value in paces.items()}} | {
            "during_of_before": round(paces["during"] / paces["before"], 3),
            **record(outcome),
        }
    finally:
        server.kill()


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60, help="of 22 steps")
    parser.add_argument("--out", help="file for the result, too")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="outage-", ignore_cleanup_errors=True) as folder:
        os.environ["RESNET_HOME"] = folder
        result = measure(Path(folder), words.epochs)
    about = {"command": f"benchmarks/reliability/outage.py {' '.join(sys.argv[1:])}", "commit": provenance.git_commit()}
    result = about | {"hardware": describe_hardware()} | result
    if words.out:
        Path(words.out).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
