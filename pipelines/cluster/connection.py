"""The Ray cluster that a job runs on: the one that is there, or a private one on this machine's loopback."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys

from pipelines.cluster import ray_internals
from pipelines.cluster.private_ray import ALONE, DASHBOARD, LOGS, QUICK, QUIET, start_private


def connect(dashboard: bool = False) -> dict[str, float]:
    """Connect this process to Ray and return the cluster's resources, e.g. {"CPU": 2.0}.

    Uses the cluster of RAY_ADDRESS (set in every Ray job) or of `ray start` on this machine, else starts a private one
    that listens on the loopback interface only and ends with this process. dashboard: a private one has a dashboard.
    """
    if not ("ray" in sys.modules and sys.modules["ray"].is_initialized()):
        for name, value in (QUICK | QUIET).items():
            os.environ.setdefault(name, value)
        address = os.environ.get("RAY_ADDRESS") or running_head()
        if address:
            import ray

            ray.init(address=address, log_to_driver=LOGS, logging_level=logging.WARNING)
        else:
            start_private(**(DASHBOARD if dashboard else {}))
    import ray  # not before it is known which: its import settles whether this process has a token

    return {name: float(amount) for name, amount in ray.cluster_resources().items()}


def connect_to_running() -> None:
    """Connect this process to the Ray of RAY_ADDRESS or of `ray start` on this machine. ValueError: there is none."""
    if not (os.environ.get("RAY_ADDRESS") or running_head()):
        raise ValueError(
            "RAY_ADDRESS must name a running Ray, or `ray start --head` must run on this machine: found neither. A job "
            "on a laptop has a private Ray, which shows its progress itself and ends with it"
        )
    connect()


def may_grow() -> bool:
    """True if somebody may add nodes to this cluster: not to a private one. Holds in the cluster's processes too."""
    return os.environ.get(ALONE) != "1"


def spare_nodes(workers: int, gpu: bool) -> int:
    """Nodes with CPUs that hold no worker, however the workers are spread."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    return len(nodes) - min(workers, sum(not gpu or node.get("GPU", 0) >= 1 for node in nodes))


def running_head() -> str | None:
    """Address of the head that `ray start --head` left running on this machine, or None."""
    address = ray_internals.noted_address()
    if not address:
        return None
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError, ValueError), socket.create_connection((host, int(port)), timeout=1):
        return address
    return None
