"""Two workers on two hosts, shards and checkpoints on S3, MLflow elsewhere, and what happens to them meanwhile.

Each training must leave the weights and rows of the one that nothing happened to, bit for bit.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Cluster, Recorded
from tests.cluster.lab import BUCKET, S3, Lab, address, lab, wait
from tests.cluster.trainings import DIGITS, RUN, STREAMED, Training

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]
MLFLOW = f"http://{address('ml')}:5000"
PATIENCE = 60.0  # seconds without a step after Ray's own notice that a node is gone
SERVER = (
    "mlflow server --host 0.0.0.0 --port 5000 --workers 1 --backend-store-uri sqlite:////home/ubuntu/mlflow.db "
    f"--artifacts-destination s3://{BUCKET}/mlflow"
)


class Hosts(Cluster):
    """With an MLflow server. The second worker comes later."""

    def __init__(self, made: Lab) -> None:
        super().__init__(made)
        made.boot("ml")
        self.start_mlflow()
        self.start({"w1": 2}, client=False)
        wait(lambda: "startup complete" in self.mlflow.text, 120, lambda: self.mlflow.text)
        self["head"].python(f"jobs/write_shards.py --source.kind digits --out {DIGITS}").done(180)

    def start_mlflow(self) -> None:
        """The server, with what its database holds."""
        self.mlflow = self["ml"].start(f"source deep-residual-ray/.venv/bin/activate; exec {SERVER}", **S3)

    def complete(self) -> None:
        """Boot the workers that are missing."""
        for name in ("w1", "w2"):
            if name not in self.lab.hosts or not self[name].processes("raylet"):
                self.lab.boot(name)
                self[name].start_ray(2, 240)


@pytest.fixture(scope="module")
def hosts(lab_folder: Path) -> Iterator[Hosts]:
    folder = lab_folder / "trainings"
    folder.mkdir()
    with lab(folder, {"MLFLOW_TRACKING_URI": MLFLOW}) as made:
        yield Hosts(made)


@pytest.fixture(scope="module")
def undisturbed(hosts: Hosts) -> dict[str, Any]:
    """Two workers on one host, and nothing happens."""
    return Training(hosts, "undisturbed").ends()


@pytest.fixture(scope="module")
def undisturbed_stream(hosts: Hosts) -> dict[str, Any]:
    """The same, with shards that are read in each epoch."""
    return Training(hosts, "undisturbed-stream", STREAMED).ends()


def test_two_hosts_train_as_one(hosts: Hosts, undisturbed_stream: dict[str, Any], recorded: Recorded) -> None:
    hosts.complete()
    training = Training(hosts, "two-hosts", STREAMED)
    assert training.ends() == undisturbed_stream
    assert "2 workers on 2 nodes" in training.job.text
    recorded("two workers on two hosts, shards and checkpoints on S3, MLflow on a fourth host", identical=True)
    assert mlflow_rows(hosts) == {f"{RUN}": len(undisturbed_stream["rows"])}


def mlflow_rows(hosts: Hosts) -> dict[str, int]:
    """By name of the newest runs: how often their error was recorded."""
    code = (
        "import json, mlflow; c = mlflow.MlflowClient(); "
        "runs = c.search_runs([e.experiment_id for e in c.search_experiments()]); "
        "print(json.dumps({r.info.run_name: len(c.get_metric_history(r.info.run_id, 'top1_error')) for r in runs[:1]}))"
    )
    job = hosts["ml"].start(f'deep-residual-ray/.venv/bin/python -c "{code}"', MLFLOW_TRACKING_URI=MLFLOW)
    return json.loads(job.done(90).splitlines()[-1])


def test_the_same_run_started_twice(hosts: Hosts, undisturbed: dict[str, Any], recorded: Recorded) -> None:
    hosts.complete()
    first = Training(hosts, "twice")
    first.reaches(2)
    second = first.start()
    assert second.ended(120) == 2
    assert f"s3://{BUCKET}/twice/{RUN} is held by process" in second.text
    assert first.ends() == undisturbed
    recorded("the same run started twice: the second is refused", identical=True)


def test_a_host_is_cut_off(hosts: Hosts, undisturbed: dict[str, Any], recorded: Recorded) -> None:
    hosts.complete()
    training = Training(hosts, "cut")
    training.reaches(20)
    began = time.time()
    hosts["w2"].cut()
    lost = training.lost(began)
    assert training.ends() == undisturbed
    hosts["w2"].power_off()
    recorded("a worker's host cut off (no process is told)", identical=True, **lost)
    assert lost["after_notice"] <= PATIENCE


def test_a_host_is_killed(hosts: Hosts, undisturbed: dict[str, Any], recorded: Recorded) -> None:
    hosts.complete()
    training = Training(hosts, "killed")
    training.reaches(20)
    began = time.time()
    hosts["w2"].power_off()
    lost = training.lost(began)
    assert training.ends() == undisturbed
    recorded("a worker's host killed (power off)", identical=True, **lost)
    assert lost["after_notice"] <= PATIENCE


def test_a_host_is_drained(hosts: Hosts, undisturbed: dict[str, Any], recorded: Recorded) -> None:
    hosts.complete()
    training = Training(hosts, "drained")
    training.reaches(20)
    began = time.time()
    words = "--reason DRAIN_NODE_REASON_PREEMPTION --reason-message test --deadline-remaining-seconds 60"
    hosts["w2"].start(f"source deep-residual-ray/deploy/node.sh; ray drain-node {words}").done(60)
    wait(lambda: "/step-" in training.job.text or any(look.get("saved") for look in training.looks()[-3:]), 60)
    time.sleep(max(0.0, began + 60 - time.time()))
    hosts["w2"].power_off()
    lost = training.lost(began)
    assert training.ends() == undisturbed
    recorded("a worker's host drained with a notice of 60 s, then off", identical=True, **lost)


def test_s3_is_silent_for_a_minute(hosts: Hosts, undisturbed_stream: dict[str, Any], recorded: Recorded) -> None:
    hosts.complete()
    training = Training(hosts, "silent", STREAMED)
    training.reaches(20)
    began = time.time()
    hosts["s3"].cut()
    time.sleep(60)
    hosts["s3"].join()
    lost = training.lost(began)
    assert training.ends() == undisturbed_stream
    recorded("S3 silent for 60 s", identical=True, **lost)


@pytest.mark.parametrize(("mode", "seconds"), [("slow-down", 60), ("refuse", 90)])
def test_s3_refuses(
    hosts: Hosts, undisturbed_stream: dict[str, Any], recorded: Recorded, mode: str, seconds: int
) -> None:
    hosts.complete()
    training = Training(hosts, mode, STREAMED)
    training.reaches(20)
    began = time.time()
    switch = hosts["s3"].disk / "tmp" / "mode"
    switch.write_text(mode)
    time.sleep(seconds)
    switch.write_text("pass")
    lost = training.lost(began)
    assert training.ends() == undisturbed_stream
    recorded(f"S3 {'answers 503 SlowDown' if mode == 'slow-down' else 'refuses'} for {seconds} s", True, **lost)


def test_mlflow_goes_away_and_comes_back(hosts: Hosts, undisturbed: dict[str, Any], recorded: Recorded) -> None:
    hosts.complete()
    training = Training(hosts, "mlflow")
    training.reaches(20)
    began = time.time()
    hosts["ml"].signal(signal.SIGKILL, "mlflow")
    lost = training.lost(began)
    time.sleep(20)
    hosts.start_mlflow()
    assert training.ends() == undisturbed
    recorded("MLflow killed and started again", identical=True, **lost)
    wait(lambda: "startup complete" in hosts.mlflow.text, 120, lambda: hosts.mlflow.text)
    training.start().done(120)  # it is finished: what was missed is recorded now
    assert mlflow_rows(hosts) == {RUN: len(undisturbed["rows"])}


def test_the_head_is_killed(hosts: Hosts, undisturbed: dict[str, Any], recorded: Recorded) -> None:
    hosts.complete()
    training = Training(hosts, "head")
    training.reaches(20)
    began = time.time()
    hosts["head"].power_off()
    hosts.lab.boot("head")
    hosts["head"].start_ray(0, 240)
    for name in ("w1", "w2"):  # `ray up` brings its workers to a new head; here they are new machines
        hosts.lab.boot(name)
        hosts[name].start_ray(2, 240)
    again = Training(hosts, "head")
    assert again.ends() == undisturbed
    assert "goes on" in again.job.text
    recorded("the head killed, a new one, the same command", True, seconds=round(time.time() - began, 1))
