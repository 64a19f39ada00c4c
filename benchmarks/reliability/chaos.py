"""Claim: a training that is killed at random moments loses nothing; it ends as if it had never been stopped.

A cluster of two local nodes. In each case a run is trained once without any trouble, then again while a worker, the
job's driver, Ray Train's controller or a node (its raylet and all its processes; another node joins) is ended by
SIGKILL at random moments, some of them while the run is still starting. Two ends come with a warning, after which the
run saves first: SIGTERM to the job, and Ray's notice that a node will be taken away, which it is once the run has saved
(or 40 s later). A run that does not go on by itself is started again by the same command. At the end its rows, weights
and momentum are compared with the first run's, bit for bit.

    python benchmarks/reliability/chaos.py --kills 24 --out results/chaos.json
    python benchmarks/reliability/chaos.py --cases resident --kills 4                    # a short one
    python benchmarks/reliability/chaos.py --cases streamed --kinds node driver --moments training --each 2 --kills 2

The last line on stdout is the result as JSON; a row for each kill goes to stderr. Seconds are from the kill to the
first step after it; steps are those that were computed twice.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch

from pipelines import provenance
from pipelines.cluster import private_ray
from pipelines.models.checkpoint_store import CheckpointStore
from pipelines.progress import postings
from pipelines.progress.status import Status
from pipelines.tracking import mlflow_runs
from pipelines.training.run_folder import TrainingOutcome
from resnet.host.hardware import describe_hardware
from resnet.training.checkpoint import Checkpoint, load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("worker", "driver", "controller", "node", "sigterm", "notice")
NOTICE = 40.0  # seconds between Ray's notice that a node goes and its end; clouds give 30 to 120
TITLES = {"worker": "ray::RayTrainWorker", "controller": "ray::TrainController"}
STARTING = 0.25  # share of kills that come before the run has made a step again
EVERY = ("--checkpoints.every-steps", "16", "--no-promote", "--scaling.threads", "1")


class Case(NamedTuple):
    """The training of a case. words: of the command line; the data are the embedded digits."""

    name: str
    words: tuple[str, ...]


CASES = (
    Case(
        "resident",
        ("cifar10-resnet8", "--recipe.epochs", "8", "--scaling.workers", "2", "--scaling.cpus-per-worker", "0.6"),
    ),
    Case(
        "streamed",
        ("cifar10-resnet8", "--recipe.epochs", "4", "--recipe.images.policy", "scale-jitter",
         "--recipe.images.shorter-side", "256", "480", "--recipe.images.pad", "None",
         "--recipe.images.eval-shorter-side", "256", "--data.window", "4",
         "--scaling.workers", "2", "--scaling.cpus-per-worker", "0.6"),
    ),
    Case(
        "three workers",
        ("cifar10-resnet8", "--recipe.epochs", "6", "--recipe.optim.batch-size", "66", "--recipe.bn-batch", "22",
         "--scaling.workers", "3",
         "--scaling.cpus-per-worker", "0.4"),
    ),
)  # fmt: skip


@dataclass
class Kill:
    """One kill. step: the last that was seen; resumed: the checkpoint's; seconds: to the first new step."""

    case: str
    run: int
    kind: str
    moment: str
    step: int
    resumed: int | None = None
    seconds: float | None = None
    by: str = "itself"

    @property
    def again(self) -> int | None:
        """Steps that were computed twice, as far as the last look shows them."""
        return None if self.resumed is None else max(0, self.step - self.resumed)

    def line(self) -> str:
        """A row of the table."""
        seconds = "     -" if self.seconds is None else f"{self.seconds:6.1f}"
        return (
            f"{self.case:14} {self.run:3} {self.kind:11} {self.moment:9} {self.step:5} {self.resumed or 0:8} "
            f"{self.again or 0:6} {seconds} s  {self.by}"
        )


class Nodes:
    """A head and one more node on this machine, each with one CPU. The driver runs on the head."""

    def __init__(self) -> None:
        folder = str(private_ray.private_folder())
        os.environ["RAY_TMPDIR"] = folder  # the cluster's address is noted there, not where other programs look for it
        Path(folder, "ray").mkdir()
        import ray
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 2**28, "node_ip_address": "127.0.0.1", "temp_dir": folder}
        self.cluster: Any = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        self.add()
        os.environ["RAY_ADDRESS"] = self.cluster.address
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level=logging.ERROR)

    def add(self) -> None:
        """One more node joins. Ray gives it 30 s; on a machine that is taken by others it needs another try."""
        for _ in range(5):
            try:
                self.cluster.add_node(num_cpus=1, object_store_memory=2**28, node_ip_address="127.0.0.1")
                return
            except Exception as late:  # Ray raises no other class
                print(f"a node did not start: {late}", file=sys.stderr)
                self._end_strays()
        raise RuntimeError("no node started in five tries")

    def _end_strays(self) -> None:
        """End the raylets, and what they run, that belong to no node of the cluster: they came too late."""
        known = {node.all_processes["raylet"][0].process.pid for node in self.cluster.list_all_nodes()}
        for raylet in psutil.Process().children():
            if raylet.name() == "raylet" and raylet.pid not in known:
                for process in [raylet, *raylet.children(recursive=True)]:
                    _kill(process)

    def lose(self) -> None:
        """A node goes: its raylet and everything that it runs, at once. Another joins."""
        (node,) = self.cluster.worker_nodes
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        for process in [raylet, *raylet.children(recursive=True)]:
            _kill(process)
        self.cluster.remove_node(node, allow_graceful=False)
        self.add()

    def announce(self) -> None:
        """Ray hears that the node will go, as a cloud tells it; the node stays."""
        from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]  compiled

        (node,) = self.cluster.worker_nodes
        reason = 2  # DRAIN_NODE_REASON_PREEMPTION of ray/protobuf/autoscaler.proto
        gcs = GcsClient(address=self.cluster.address)
        gcs.drain_node(node.node_id, reason, "preemption", int((time.time() + NOTICE) * 1000))

    def state(self) -> str:
        """Ray's free CPUs, and the placement groups and actors that are alive. For a lost run."""
        import ray
        from ray._private.state import actors
        from ray.util import placement_group_table

        groups: dict[str, Any] = placement_group_table()
        held = [f"group {name} {found['state']} {found['bundles']}" for name, found in groups.items()]
        alive = [f"actor {found}" for found in actors().values() if found["State"] != "DEAD"]
        return "\n".join([f"free: {ray.available_resources()}", *held, *alive])

    def processes(self, title: str) -> list[psutil.Process]:
        """Processes of both nodes whose title begins so. All were started by this program."""
        found = []
        for process in psutil.Process().children(recursive=True):
            try:
                if any(word.startswith(title) for word in process.cmdline()[:1]):
                    found.append(process)
            except psutil.Error:
                continue  # it has just ended
        return found


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


@dataclass
class Job:
    """The command of a run, and what it has done so far."""

    case: Case
    storage: Path
    tries: int = 0
    process: subprocess.Popen[str] = field(init=False)

    def start(self) -> None:
        """Start it, or start it again."""
        self.tries += 1
        words = [sys.executable, str(ROOT / "jobs" / "train_imagenet.py"), *self.case.words, *EVERY]
        with open(self.storage.with_suffix(f".{self.tries}.log"), "w") as log:
            self.process = subprocess.Popen(
                [*words, "--storage", str(self.storage)], stdout=subprocess.PIPE, stderr=log, text=True
            )

    @property
    def name(self) -> str:
        """Of the run."""
        return f"{self.case.words[0]}-A.s0"

    def saved(self) -> int:
        """The step of the newest whole checkpoint."""
        names = CheckpointStore(str(self.storage / self.name), keep=1).names()
        return int(names[-1].removeprefix("step-")) if names else 0

    def said(self) -> str:
        """The end of what its last try said."""
        return self.storage.with_suffix(f".{self.tries}.log").read_text()[-2000:]

    def outcome(self) -> TrainingOutcome | None:
        """Its outcome; None if it has not ended well."""
        if self.process.poll() != 0 or self.process.stdout is None:
            return None
        return TrainingOutcome(**json.loads(self.process.stdout.read().splitlines()[-1]))


def whole(case: Case, folder: Path) -> Checkpoint:
    """The last checkpoint of a run that nobody stops."""
    job = Job(case, folder / f"{case.name.replace(' ', '-')}-whole")
    began = time.monotonic()
    job.start()
    job.process.wait(timeout=1800)
    outcome = job.outcome()
    assert outcome is not None, f"the run without trouble failed: {job.storage}"
    print(f"{case.name}: {outcome.steps} steps without trouble, {time.monotonic() - began:.0f} s", file=sys.stderr)
    return load_checkpoint(outcome.checkpoint)


class Plan(NamedTuple):
    """Kinds of victims and moments, without end. moments: None draws them.

    patience: seconds without a new step after which a run counts as lost.
    """

    kinds: Iterator[str]
    moments: Iterator[str] | None
    patience: float

    @classmethod
    def of(cls, words: argparse.Namespace) -> Plan:
        """As asked for."""
        kinds = words.kinds or np.random.default_rng(words.seed).permutation(KINDS).tolist()
        moments = itertools.cycle(words.moments) if words.moments else None
        return cls(itertools.cycle(kinds), moments, words.patience)


class Chaos:
    """One run that is killed `kills` times, or less often if it ends before. rng decides when and what."""

    def __init__(self, nodes: Nodes, job: Job, number: int, plan: Plan, kills: int, seed: int) -> None:
        self.nodes, self.job, self.number, self.plan, self.left = nodes, job, number, plan, kills
        self.rng = np.random.default_rng((seed, number))
        self.kills: list[Kill] = []
        self.open: list[tuple[Kill, float]] = []  # kills after which there was no step yet, and when they were
        self.step = self.known = 0
        self.last: Status | None = None

    def run(self) -> TrainingOutcome | None:
        """To the end; None if the run was lost."""
        postings.forget(self.job.name)
        self.job.start()
        self._draw(time.monotonic())
        moved = time.monotonic()
        while time.monotonic() - moved < self.plan.patience:
            time.sleep(0.2)
            if self._look():
                moved = time.monotonic()
            if (code := self.job.process.poll()) is not None:
                if code == 0:
                    return self.job.outcome()
                if not self.open or self.job.tries > 10:
                    print(f"it failed, and nobody had killed anything: {self.job.said()}", file=sys.stderr, flush=True)
                    return None
                for kill, _ in self.open:
                    kill.by = "same command"
                self.job.start()
            elif self.left and time.monotonic() > self.due:
                self._strike()
        print(f"no step for {self.plan.patience:g} s\n{self.nodes.state()}", file=sys.stderr)
        print(f"the job's status: {self.job.process.poll()}\n{self.job.said()}", file=sys.stderr, flush=True)
        self.job.process.kill()
        return None

    def _draw(self, now: float) -> None:
        """When to kill next: so long after the first step that is seen, or after now whatever the run does."""
        early = bool(self.rng.random() < STARTING)
        self.early = early if self.plan.moments is None else next(self.plan.moments) == "starting"
        self.due = now + self.rng.uniform(0, 8) if self.early else float("inf")

    def _look(self) -> bool:
        """Take note of a new status; whether there was one."""
        status = postings.last_status(self.job.name)
        new = status is not None and (self.last is None or status != self.last)
        if status is not None and new:
            if self.last is None or status.process != self.last.process:  # the first step of a new try
                for kill, when in self.open:
                    kill.seconds, kill.resumed = time.monotonic() - when, self.known
                    print(kill.line(), file=sys.stderr, flush=True)
                self.open.clear()
                if not self.early:
                    self.due = time.monotonic() + self.rng.uniform(0, 2.5)
            self.last, self.step = status, status.step
        self.known = self.job.saved()
        return new

    def _warn(self) -> None:
        """Announce that a node goes, and wait until the run has saved, has ended, or the time is over."""
        self._look()
        before, ends = self.known, time.monotonic() + NOTICE
        self.nodes.announce()
        while time.monotonic() < ends and self.known == before and self.job.process.poll() is None:
            time.sleep(0.05)
            self._look()

    def _strike(self) -> None:
        kind = next(self.plan.kinds)
        if kind in TITLES:
            found = self.nodes.processes(TITLES[kind])
            if not found:
                kind = "driver"  # none of them is there yet
            else:
                _kill(found[int(self.rng.integers(len(found)))])
        if kind == "driver":
            self.job.process.kill()
        if kind == "sigterm":
            self.job.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.job.process.wait(NOTICE)
        if kind == "notice":
            self._warn()
        if kind in ("node", "notice"):
            self.nodes.lose()
        self._look()
        now = time.monotonic()
        kill = Kill(self.job.case.name, self.number, kind, "starting" if self.early else "training", self.step)
        self.kills.append(kill)
        self.open.append((kill, now))
        self.left -= 1
        self._draw(now)


def difference(a: Checkpoint, b: Checkpoint) -> str | None:
    """The first difference between two checkpoints; None: they are equal, bit for bit."""
    kept = ("epoch", "step", "lr", "train_loss", "train_error", "val_loss", "top1_error", "top5_error")
    for one, other in itertools.zip_longest(a.progress.rows, b.progress.rows):
        if one is None or other is None or any(getattr(one, name) != getattr(other, name) for name in kept):
            return f"row {one} against {other}"
    for name, mine, theirs in (("weights", a.model, b.model), ("momentum", a.optimizer, b.optimizer)):
        if mine.keys() != theirs.keys() or not all(torch.equal(mine[key], theirs[key]) for key in mine):
            return name
    return None


def doubled(storage: Path, job: Job) -> str | None:
    """Duplicates in MLflow: more than one run, or a metric's step more than once."""
    api = mlflow_runs.client()
    found = api.search_runs([mlflow_runs.experiment(api)], f"tags.`resnet.key` = '{storage}/{job.name}'")
    if len(found) != 1:
        return f"{len(found)} MLflow runs"
    steps = [metric.step for metric in api.get_metric_history(found[0].info.run_id, "top1_error")]
    return None if len(steps) == len(set(steps)) else f"MLflow steps {steps}"


def table(result: dict[str, Any]) -> dict[str, Any]:
    """Median and worst seconds and steps, by what was killed."""
    rows = [kill for kill in result["each"] if kill["seconds"] is not None and kill["moment"] == "training"]
    return {
        kind: {
            "kills": len(mine),
            "seconds": statistics.median(kill["seconds"] for kill in mine),
            "most_seconds": max(kill["seconds"] for kill in mine),
            "steps_again": statistics.median(kill["again"] for kill in mine),
            "most_steps_again": max(kill["again"] for kill in mine),
        }
        for kind in KINDS
        if (mine := [kill for kill in rows if kill["kind"] == kind])
    }


def measure(words: argparse.Namespace, folder: Path, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """All cases; what their runs came to. keep: is given what there is after each run."""
    nodes = Nodes()
    plan = Plan.of(words)
    began, chosen = time.monotonic(), [case for case in CASES if case.name in words.cases]
    result: dict[str, Any] = {
        "kills": 0,
        "runs": 0,
        "lost_runs": 0,
        "bit_identical": True,
        "differences": [],
        "each": [],
    }
    print("case           run killed      while      step resumed again  until a new step, by", file=sys.stderr)
    for number, case in enumerate(chosen, 1):
        ends = began + 60 * words.minutes * number / len(chosen)
        reference, kills = whole(case, folder), 0
        while kills < words.kills / len(chosen) and time.monotonic() < ends:
            job = Job(case, folder / f"{case.name.replace(' ', '-')}-{result['runs']}")
            chaos = Chaos(nodes, job, result["runs"], plan, words.each, words.seed)
            outcome = chaos.run()
            kills += len(chaos.kills)
            result["runs"] += 1
            result["each"] += [asdict(kill) | {"again": kill.again} for kill in chaos.kills]
            result["lost_runs"] += outcome is None
            if outcome is not None:
                found = (difference(reference, load_checkpoint(outcome.checkpoint)), doubled(job.storage, job))
                result["differences"] += [f"{job.storage.name}: {what}" for what in found if what is not None]
            result["kills"] = len(result["each"])
            result["bit_identical"] = not result["differences"] and not result["lost_runs"]
            result["by_kind"] = table(result)
            keep(result)
    return result


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=24, help="at least so many, over all cases")
    parser.add_argument("--minutes", type=float, default=60.0, help="after which no other run is begun")
    parser.add_argument("--each", type=int, default=5, help="kills of one run")
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES], default=[c.name for c in CASES])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="what is killed, in this order; else drawn")
    parser.add_argument("--moments", nargs="+", choices=("training", "starting"), help="and when; else drawn")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds without a step: the run is lost")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of what is killed")
    parser.add_argument("--out", help="file for the result, too")
    words = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    about = {"command": f"benchmarks/reliability/chaos.py {' '.join(sys.argv[1:])}", "commit": provenance.git_commit()}
    about |= {"hardware": describe_hardware(), "seed": words.seed}

    def keep(result: dict[str, Any]) -> None:
        if words.out:
            Path(words.out).write_text(json.dumps(about | result, indent=1) + "\n")

    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        os.environ["RESNET_HOME"] = folder
        print(json.dumps(about | measure(words, Path(folder), keep)))


if __name__ == "__main__":
    main()
