#!/usr/bin/env python3
"""Claim: `--scaling.workers 1:2` goes on with one worker when a node is lost, and grows back when one joins.

    python benchmarks/reliability/elastic.py --out results/elastic.json

A cluster of two local nodes with one CPU each trains ResNet-8 on the embedded digits. The second node, its raylet and
all that it runs, is ended by SIGKILL; later another joins. The global batch stays 64 images in parts of 32, and so do
the order of examples and the learning rate: every epoch is there once, with the lr of its last step. The last line of
stdout is JSON: seconds from the loss to the first new step, and from the new node to the first step of two workers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import psutil

from benchmarks.reliability.chaos import Nodes
from benchmarks.training.single import commit
from pipelines.progress import postings
from pipelines.training.run_folder import TrainingOutcome
from resnet.host import hardware
from resnet.training.checkpoint import load_checkpoint
from resnet.training.lr_schedule import lr_at

ROOT = Path(__file__).resolve().parents[2]
RUN = "cifar10-resnet8-A.s0"
WORKER = "ray::RayTrainWorker"
PATIENCE = 240.0  # seconds that anything may take
MORE = 40  # steps that show that it goes on


def main(argv: list[str]) -> int:
    """Disturb a run, and look at what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--out", help="JSON file")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="elastic-") as folder:
        os.environ["RESNET_HOME"] = f"{folder}/home"
        nodes = Nodes()
        outcome, seconds = disturb(nodes, start(f"{folder}/runs", args.epochs))
        checkpoint = load_checkpoint(outcome.checkpoint)
    rows, recipe = checkpoint.progress.rows, checkpoint.recipe
    total, steps = checkpoint.progress.total_steps, checkpoint.progress.total_steps // args.epochs
    found = {
        "benchmark": "elastic",
        **seconds,
        "epochs": len(rows),
        "every_epoch_once": [row.step for row in rows] == [steps * (n + 1) for n in range(args.epochs)],
        "lr_of_the_schedule": [row.lr for row in rows]
        == [lr_at(row.step - 1, total, recipe.optim, recipe.schedule) for row in rows],
        "top1_error": outcome.top1_error,
        "hardware": hardware.describe_hardware(),
        "commit": commit(),
    }
    if args.out:
        Path(args.out).write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))
    return 0


def start(storage: str, epochs: int) -> subprocess.Popen[str]:
    """The job as a user starts it."""
    words = [sys.executable, str(ROOT / "jobs" / "train_imagenet.py"), "cifar10-resnet8", "--storage", storage]
    words += ["--recipe.epochs", str(epochs), "--scaling.workers", "1:2", "--scaling.cpus-per-worker", "0.6"]
    words += ["--scaling.threads", "1", "--no-promote", "--checkpoints.every-steps", "16"]
    postings.forget(RUN)
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def disturb(nodes: Nodes, job: subprocess.Popen[str]) -> tuple[TrainingOutcome, dict[str, Any]]:
    """Lose a node, let another join, wait for the end."""
    until(lambda: step() > MORE and workers(nodes) == 2, job)
    (node,) = nodes.cluster.worker_nodes
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in [raylet, *raylet.children(recursive=True)]:
        process.kill()
    nodes.cluster.remove_node(node, allow_graceful=False)
    lost, at = time.monotonic(), step()
    tell(f"a node is lost at step {at}")
    until(lambda: workers(nodes) == 1 and step() > at, job)
    alone = time.monotonic() - lost
    tell(f"one worker goes on at step {step()} after {alone:.1f} s")
    at = step()
    until(lambda: step() > at + MORE, job)
    nodes.add()
    joined = time.monotonic()
    tell(f"a node joins at step {step()}")
    until(lambda: workers(nodes) == 2, job)
    at = step()
    until(lambda: step() != at, job)
    grown = time.monotonic() - joined
    tell(f"two workers go on at step {step()} after {grown:.1f} s")
    return ended(job), {"to_one_worker_s": round(alone, 1), "back_to_two_s": round(grown, 1)}


def tell(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def step() -> int:
    """The last step that was posted."""
    status = postings.last_status(RUN)
    return 0 if status is None else status.step


def workers(nodes: Nodes) -> int:
    """Training workers of this cluster."""
    return len(nodes.processes(WORKER))


def until(condition: Callable[[], bool], job: subprocess.Popen[str]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if job.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the job did not get there; its status is {postings.last_status(RUN)}")
        time.sleep(0.1)


def ended(job: subprocess.Popen[str]) -> TrainingOutcome:
    """Outcome of a job."""
    out, _ = job.communicate(timeout=480)
    if job.returncode:
        raise SystemExit(f"the job failed with {job.returncode}")
    return TrainingOutcome(**json.loads(out.splitlines()[-1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
