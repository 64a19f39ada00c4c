"""The Ray cluster that a job runs on: the one that is there, or a private one on this machine's loopback."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from pipelines import provenance, stop_signals
from pipelines.cluster.cluster_address import cluster_address, is_here
from pipelines.cluster.private_ray import ALONE, DASHBOARD, LOGS, QUICK, QUIET, quoted_python, start_private
from pipelines.run import home
from resnet.host.home_folder import give_home
from resnet.host.temporary_folder import end_with

IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set in a submitted job, whose environment has been said at its submission


def connect(dashboard: bool = False, *, only_running: bool = False, shielded: bool = False) -> dict[str, float]:
    """Connect this process to Ray and return the cluster's resources, e.g. {"CPU": 2.0}.

    Uses the cluster of RAY_ADDRESS (set in every Ray job) or of `ray start` on this machine, else starts a private one
    that listens on the loopback interface only and ends with this process. dashboard: a private one has a dashboard.
    only_running: start none. shielded: a private one hears no signal that is sent to all processes of this one's group:
    this one ends it. ValueError: RAY_ADDRESS names no cluster that lets this process in, or there is none.
    """
    if not ("ray" in sys.modules and sys.modules["ray"].is_initialized()):
        for name, value in (QUICK | QUIET).items():
            os.environ.setdefault(name, value)
        give_home()
        address = cluster_address()
        if address is None and only_running:
            raise ValueError(
                "RAY_ADDRESS must name a running Ray, or `ray start --head` must run on this machine: found neither. A "
                "job on a laptop has a private Ray, which shows its progress itself and ends with it"
            )
        with stop_signals.not_in_between():
            if address is not None:
                _join(address)
            else:
                start_private(shielded, **(DASHBOARD if dashboard else {}))
    import ray  # not before it is known which: its import settles whether this process has a token

    return {name: float(amount) for name, amount in ray.cluster_resources().items()}


def _join(address: str) -> None:
    """Connect to a cluster that runs. Its processes know nothing of this one's environment, nor of installed code."""
    import ray

    environment: dict[str, Any] = {}
    if IN_A_JOB in os.environ:
        if os.environ.get(ALONE) == "1":  # a private head: Ray itself would look for it for a minute
            end_with(Path(os.environ["RAY_AUTH_TOKEN_PATH"]).parent)
    else:
        if "RESNET_HOME" in os.environ and is_here(address):
            environment["env_vars"] = {"RESNET_HOME": home()}
        if is_here(address):
            environment |= quoted_python()
        if provenance.ROOT.name == "parts":  # installed: where, the cluster's processes do not know
            environment["py_modules"] = [str(provenance.ROOT / name) for name in ("pipelines", "serve")]
    try:
        ray.init(address=address, log_to_driver=LOGS, logging_level=logging.WARNING, runtime_env=environment or None)
    except RuntimeError as error:
        if "ersion mismatch" in str(error):
            raise ValueError(f"the cluster at {address} has other versions: {' '.join(str(error).split())}") from None
        raise


def may_grow() -> bool:
    """True if somebody may add nodes to this cluster: not to a private one. Holds in the cluster's processes too."""
    return os.environ.get(ALONE) != "1"
