"""Hosts for tests: made once, with Ray on three of them, an S3 server and a client behind a tunnel."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cluster.lab import BUCKET, PROGRAMS, S3, S3_PORT, Host, Job, Lab, lab, missing

RESULTS = "RESNET_CLUSTER_RESULTS"  # file for the rows of docs/cluster.md


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked cluster unless `-m` asks for it: `make test-cluster`."""
    for item in () if "cluster" in str(config.getoption("markexpr")) else items:
        if item.get_closest_marker("cluster"):
            item.add_marker(pytest.mark.skip(reason="minutes on several hosts: make test-cluster"))


ROWS = list[dict[str, Any]]()
Recorded = Callable[..., None]


@pytest.fixture
def recorded(request: pytest.FixtureRequest) -> Recorded:
    """recorded(scenario, identical, **figures): a row of docs/cluster.md."""

    def add(scenario: str, identical: bool, **figures: Any) -> None:
        ROWS.append({"scenario": scenario, "test": request.node.name, "identical": identical, **figures})

    return add


def pytest_sessionfinish() -> None:
    """Write the rows where somebody wants them."""
    if place := os.environ.get(RESULTS):
        Path(place).write_text(json.dumps(ROWS, indent=1) + "\n")


@pytest.fixture(scope="session")
def lab_folder() -> Iterator[Path]:
    """For disks of hosts: short, for the sockets in it."""
    if (why := missing()) is not None:
        pytest.skip(why)
    for left in Path(tempfile.gettempdir()).glob("lab-*-*"):  # of a lab that was killed
        if not psutil.pid_exists(int(left.name.split("-")[1])):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"lab-{os.getpid()}-"))
    yield folder
    if "RESNET_KEEP_LAB" not in os.environ:
        shutil.rmtree(folder, ignore_errors=True)


class Cluster:
    """A lab whose hosts run Ray and an S3 server, as cluster.yaml has it for users who name their own MLflow server."""

    def __init__(self, made: Lab) -> None:
        self.lab = made

    def __getitem__(self, name: str) -> Host:
        return self.lab[name]

    def start(self, workers: dict[str, int], client: bool = True) -> None:
        """The head, workers with so many CPUs each, S3 and perhaps a client with a tunnel."""
        self.lab.boot("head", *workers, "s3", *(["client"] if client else []))
        self.s3 = self["s3"].python(f"{PROGRAMS}/s3_host.py {S3_PORT} {BUCKET} /tmp/mode")
        self.s3.says("ready", 120)
        self["head"].start_ray(0, 240)
        for started in [self[name].starting_ray(cpus) for name, cpus in workers.items()]:
            started.done(240)
        if client:
            self.lab.tunnel()

    def from_client(self, command: str, **variables: str) -> Job:
        """A command of a user in the project's folder, with README's two variables."""
        given = {"RAY_ADDRESS": "http://localhost:8265", "RAY_AUTH_MODE": "token"} | variables
        return self["client"].start(f"cd deep-residual-ray && source .venv/bin/activate && {command}", **given)

    def left(self, uri: str) -> dict[str, Any]:
        """What a run has left in the bucket: programs/outcome_of.py."""
        job = self["s3"].start(f"deep-residual-ray/.venv/bin/python {PROGRAMS}/outcome_of.py {uri}", **S3)
        return json.loads(job.done(120))


@pytest.fixture(scope="module")
def cluster(lab_folder: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Of this module alone: a head without CPUs, two workers, S3 and a client."""
    folder = lab_folder / request.module.__name__.rpartition(".")[2][:20]
    folder.mkdir()
    with lab(folder) as made:
        cluster = Cluster(made)
        cluster.start({"w1": 2, "w2": 2})
        yield cluster
