"""The Ray cluster that a job runs on: the one that is there, or a private one on this machine's loopback.

    python -m pipelines.cluster -- python jobs/train_imagenet.py ARGS

submits a command as a Ray job and streams its output: to the cluster of RAY_ADDRESS, else to the head that
`ray start --head` left on this machine, else to a head of its own that ends with the job.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

from pipelines import tracking
from pipelines.mlflow_store import CREDENTIALS, SETTINGS, store_uri

# Ray's own default is two seconds between two looks of the controller at its workers, the end of a training included.
QUICK = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1", "RAY_USAGE_STATS_ENABLED": "0"}
# Ours to show: progress, tables, errors. Ray Tune's own reports would stand between them.
QUIET = {"RAY_AIR_NEW_OUTPUT": "0", "RAY_DATA_LOG_LEVEL": "ERROR", "RAY_worker_maximum_startup_concurrency": "4"}
# What Ray's own processes take while a network computes, which has all cores, is a loss of speed. A Ray that ends with
# its job is scraped by nobody (metrics: 2 % of a core), has memory and disk looked at once in one and two seconds in
# place of four and ten times a second (0.2 %), and ends workers that have had nothing to do (0.5 % each). Its agent
# measures every process every five seconds, and looks twice a second whether Ray is still there (0.1 %).
SPARING = {
    "RAY_enable_metrics_collection": "0",
    "RAY_memory_monitor_refresh_ms": "1000",
    "RAY_local_fs_monitor_interval_ms": "2000",
    "RAY_num_workers_soft_limit": "0",
    "RAY_idle_worker_killing_time_threshold_ms": "15000",
    "REPORTER_UPDATE_INTERVAL_MS": "30000",
    "RAY_DASHBOARD_AGENT_CHECK_PARENT_INTERVAL_S": "2",
}
ALONE = "RESNET_RAY_ALONE"  # set where Ray is one machine, and stays one
DASHBOARD: dict[str, Any] = {"include_dashboard": True, "dashboard_host": "127.0.0.1"}
# Workers' own lines would bury the progress; they are in the session's log files, and here if they are asked for.
LOGS = bool(os.environ.get("RESNET_WORKER_LOGS"))
PASSED_ON = ("RESNET_HOME", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", tracking.PARENT, *SETTINGS)


def connect(dashboard: bool = False) -> dict[str, float]:
    """Connect this process to Ray and return the cluster's resources, e.g. {"CPU": 2.0}.

    Uses the cluster of RAY_ADDRESS (set in every Ray job) or of `ray start` on this machine, else starts a private one
    that listens on the loopback interface only and ends with this process. dashboard: a private one has a dashboard.
    """
    import ray

    if not ray.is_initialized():
        for name, value in (QUICK | QUIET).items():
            os.environ.setdefault(name, value)
        address = os.environ.get("RAY_ADDRESS") or running_head()
        if address:
            ray.init(address=address, log_to_driver=LOGS, logging_level=logging.WARNING)
        else:
            start_private(**(DASHBOARD if dashboard else {}))
    return {name: float(amount) for name, amount in ray.cluster_resources().items()}


def may_grow() -> bool:
    """Whether somebody may add nodes to this cluster: not to a private one. Holds in the cluster's processes too."""
    return os.environ.get(ALONE) != "1"


def spare_nodes(workers: int, gpu: bool) -> int:
    """Nodes with CPUs that hold no worker, however the workers are spread."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    return len(nodes) - min(workers, sum(not gpu or node.get("GPU", 0) >= 1 for node in nodes))


def start_private(**options: Any) -> Any:
    """Start Ray on this machine, on the loopback interface only, with a token of its own. Ends with the process."""
    folder = private_folder()
    # One machine is not taken away from itself; the actor that watches for that is one more process to start.
    os.environ.update({"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", ALONE: "1"})
    import ray
    from ray._private.utils import write_ray_address

    settings = {
        "include_dashboard": False,
        "logging_level": logging.WARNING,
        "log_to_driver": LOGS,
        "_temp_dir": folder,
    } | options
    context: Any = ray.init(address="local", **settings)
    # Where a job looks first; without it, it takes any Ray that runs on the machine, and waits for ever at its door.
    write_ray_address(context.address_info["gcs_address"], folder)
    return context


def private_folder() -> str:
    """A folder for a Ray of this process's own; from here on this process starts Ray on the loopback interface only.

    The folder holds the token that guards it. At exit Ray is ended and the folder removed.
    """
    folder = tempfile.mkdtemp(prefix="resnet-", dir=_short_temp())
    token = Path(folder) / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    os.environ.update(QUICK | QUIET | SPARING | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)})
    # A job's `python` is the one on the head's PATH.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    # Read by Ray at import: without it Ray binds the machine's outward address, whatever node address is asked for.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    from ray._private import ray_constants
    from ray._private.parameter import RayParams
    from ray._raylet import Config  # pyright: ignore[reportAttributeAccessIssue]  compiled

    # The same for a process that has imported Ray before: both settings are read once, at import.
    ray_constants.ENABLE_RAY_CLUSTER = False
    Config.initialize("")
    # A node's agent, which takes jobs, wants port 52365 and goes without where another Ray has it; any free one serves.
    # Two processes less: one that hands on workers' lines, and one that would ask a cloud for more nodes.
    spared = {"include_log_monitor": LOGS, "no_monitor": True}
    initialise: Any = partialmethod(RayParams.__init__, dashboard_agent_listen_port=0, **spared)
    RayParams.__init__ = initialise
    atexit.register(_end_private, folder)
    return folder


def _end_private(folder: str) -> None:
    """End Ray, then remove its folder; the other way round its processes would write it anew."""
    import ray

    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def _short_temp() -> str:
    """A temporary folder with a short name: the path of a Unix socket holds 107 bytes at most."""
    return "/tmp" if len(tempfile.gettempdir()) > 20 else tempfile.gettempdir()


def running_head() -> str | None:
    """Address of the head that `ray start --head` left running on this machine, or None."""
    from ray._private.utils import read_ray_address

    address = read_ray_address()
    if not address:
        return None
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError, ValueError), socket.create_connection((host, int(port)), timeout=1):
        return address
    return None


@contextlib.contextmanager
def head() -> Iterator[dict[str, str]]:
    """Environment in which `ray job submit` reaches a cluster; a private head is ended on the way out."""
    address = os.environ.get("RAY_ADDRESS") or running_head()
    if address:
        yield {**os.environ, "RAY_ADDRESS": address}
        return
    print("Starting a Ray head on this machine for this job (loopback only).", file=sys.stderr, flush=True)
    import ray

    context = start_private(**DASHBOARD, log_to_driver=False)
    try:
        await_agent(context.address_info["node_id"])
        yield {**os.environ, "RAY_ADDRESS": f"http://{context.address_info['webui_url']}"}
    finally:
        ray.shutdown()


def await_agent(node: str, patience: float = 120.0) -> None:
    """Wait for the agent that takes a node's jobs: on a busy machine it comes later than the 10 s that Ray waits."""
    from ray.dashboard.consts import DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX
    from ray.experimental.internal_kv import _internal_kv_get

    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if _internal_kv_get(f"{DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX}{node}", namespace="dashboard") is not None:
            return
        time.sleep(0.1)


def passed_on(private: bool) -> dict[str, str]:
    """What a job gets of this shell's environment. To a head that this process starts credentials come by inheritance,
    and so do not stand in Ray's own records of the job; a cluster that runs already gets them in those, which who may
    ask it for jobs can read."""
    names = PASSED_ON if private else (*PASSED_ON, *CREDENTIALS)
    found = {name: os.environ[name] for name in names if name in os.environ}
    if "MLFLOW_TRACKING_URI" in found:
        found["MLFLOW_TRACKING_URI"] = store_uri()  # a relative path would be another file in the job's folder
    found[tracking.COMMIT] = tracking.git_commit()  # the upload leaves .git out
    return found


def submit(command: list[str]) -> int:
    """Run a command as a Ray job from this folder, stream its output; its exit status (1 for any failure)."""
    private = not (os.environ.get("RAY_ADDRESS") or running_head())
    variables = passed_on(private)
    # In a file of this user's own: the words of a command can be read by every user of the machine.
    with head() as environment, tempfile.NamedTemporaryFile("w", prefix="resnet-job-", suffix=".yaml") as file:
        json.dump({"env_vars": QUICK | variables}, file)
        file.flush()
        ray = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--working-dir", "."]
        return subprocess.call([*ray, "--runtime-env", file.name, "--", *command], env=environment)


if __name__ == "__main__":
    words = sys.argv[1:]
    if not words or words[0] != "--" or len(words) == 1:
        sys.exit(__doc__)
    try:
        sys.exit(submit(words[1:]))
    except ValueError as error:
        print(f"pipelines.cluster: {error}", file=sys.stderr)
        sys.exit(2)
