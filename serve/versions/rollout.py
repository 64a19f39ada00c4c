"""Change who answers while the application runs, by hand or as a registry says.

`switch` writes the wanted versions into Ray's key-value store, and each replica looks there once a second. Serve's own
user_config would take a replica out of service while it is reconfigured: while a checkpoint is loaded.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.util import list_named_actors

from resnet.frozen import Frozen
from serve.settings import Args
from serve.versions.traffic import CanaryComparison, Traffic, Verdict, judge, together

APPLICATION = "resnet"
DEPLOYMENT = "classifier"
KEY = b"resnet/serve/deployed"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LOOK = 1.0  # seconds between two looks of a replica
WITHOUT = "RESNET_WITHOUT_INTERNALS"  # environment variable: 1 does without Ray's private names, as pipelines does

# Each private name of Ray that serve uses, and what it buys.
PRIVATE_NAMES = {
    "ray.experimental.internal_kv._internal_kv_put": "the wanted versions are kept without an actor for them",
    "ray.experimental.internal_kv._internal_kv_get": "the same: a look of each replica a second, 1 ms",
    "ray.serve.context._get_global_client": "another host or port than Serve's is refused at once, not after 120 s",
}
log = logging.getLogger("serve")


@cache
def _internals() -> Any | None:
    """Ray's key-value store, or None where it is missing or not to be used; then an actor holds what is kept."""
    if os.environ.get(WITHOUT) != "1":
        try:
            from ray.experimental import internal_kv

            return internal_kv if hasattr(internal_kv, "_internal_kv_put") else None
        except ImportError:
            pass
    log.warning("the wanted versions are kept by an actor: Ray's key-value store is not used")
    return None


def serve_internals_missing() -> list[str]:
    """The private names above that the installed Ray lacks."""
    missing = []
    for name in PRIVATE_NAMES:
        module, _, attribute = name.rpartition(".")
        try:
            found = hasattr(importlib.import_module(module), attribute)
        except ImportError:
            found = False
        if not found:
            missing.append(name)
    return missing


class _Notes:
    """The values kept where Ray's key-value store is missing."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value."""
        self.values[key] = value

    def get(self, key: bytes) -> bytes | None:
        """A value, or None."""
        return self.values.get(key)


def _notes() -> Any:
    options: Any = {"name": "resnet-serve-notes", "namespace": "resnet", "get_if_exists": True, "lifetime": "detached"}
    return ray.remote(_Notes).options(num_cpus=0, **options).remote()


def _put(key: bytes, value: bytes) -> None:
    store = _internals()
    if store is None:
        ray.get(_notes().put.remote(key, value))
    else:
        store._internal_kv_put(key, value, overwrite=True)


def _get(key: bytes) -> bytes | None:
    store = _internals()
    return ray.get(_notes().get.remote(key)) if store is None else store._internal_kv_get(key)


def serve_address() -> tuple[str, int] | None:
    """Host and port at which Serve listens on this cluster; None: this Ray does not say."""
    if os.environ.get(WITHOUT) == "1":
        return None
    try:
        from ray.serve.context import _get_global_client

        there = _get_global_client(False).http_config  # pyright: ignore[reportOptionalMemberAccess]
        return there.host or "127.0.0.1", there.port
    except (ImportError, AttributeError):
        return None


def behind_haproxy() -> bool:
    """True if the cluster's Serve has HAProxy take the requests: it keeps Serve's own proxy as a second choice then."""
    actors: list[Any] = list_named_actors(all_namespaces=True)
    return any("fallback" in actor["name"] for actor in actors)


def require_reachable(host: str) -> None:
    """ValueError where each node's HAProxy would ask replicas of other nodes that listen on their loopback interface.

    Serve itself says so in its controller's log only (ray-project/ray#62522).
    """
    nodes = sum(node["Alive"] for node in ray.nodes())
    haproxy = os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1" or behind_haproxy()
    if host in LOOPBACK and nodes > 1 and haproxy:
        raise ValueError(
            f"host must be one that other nodes reach, 0.0.0.0 with an api_key_file, where HAProxy takes the requests "
            f"on {nodes} nodes, got {host}"
        )


class Deployed(Frozen):
    """The application's arguments, and the versions that answer now. A replica with other arguments ignores it."""

    args: Args
    traffic: Traffic


class ReplicaState(Frozen):
    """Of one replica; pid: on its node. traffic: the last that it took over; refused: why it does not serve it all."""

    replica: str
    pid: int
    args: Args
    traffic: Traffic
    version: str
    canary: str | None
    refused: str | None
    comparison: CanaryComparison | None


def read_deployed() -> Deployed | None:
    """The application on this cluster, as `deploy` and `switch` noted it; None where they did not."""
    value = _get(KEY)
    return None if value is None else Deployed.model_validate_json(value)


def running() -> Deployed | None:
    """The running application: its replicas' arguments and the versions that answer, or None. Starts nothing."""
    try:
        there = serve.status().applications.get(APPLICATION)
    except RayServeException:  # Serve does not run on this cluster
        return None
    if there is None or there.status != "RUNNING":
        return None
    noted = read_deployed()
    try:
        found = states()
    except (RayError, TimeoutError):  # a replica has just died
        found = []
    if not found or (noted is not None and noted.args == found[0].args):
        return noted
    return Deployed(args=found[0].args, traffic=found[0].traffic)  # a config file deployed it


def replicas() -> int:
    """Number of replicas that take requests, as Serve's controller counts them; at least 1."""
    there = serve.status().applications.get(APPLICATION)
    found = there.deployments.get(DEPLOYMENT) if there else None
    counts = found.replica_states.items() if found else ()
    return max(1, sum(count for state, count in counts if state == "RUNNING"))


def note(deployed: Deployed) -> None:
    """Write down what the replicas shall serve."""
    _put(KEY, deployed.model_dump_json().encode())


def states() -> list[ReplicaState]:
    """Of all replicas that run."""
    handle = serve.get_deployment_handle(DEPLOYMENT, APPLICATION)
    return list(handle.broadcast("state").results(timeout_s=10))


def switch(wanted: Traffic, seconds: float = 300.0) -> str | None:
    """Change who answers, and return when all replicas have: None, or why a replica refuses it; then nothing changes.

    RuntimeError where nothing runs, TimeoutError.
    """
    now = running()
    if now is None:
        raise RuntimeError(f"application {APPLICATION} must run before its versions can be changed")
    if now.traffic == wanted:
        return None
    note(Deployed(args=now.args, traffic=wanted))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(LOOK / 2)
        try:
            found = states()
        except (RayError, TimeoutError):  # a replica has just died; another takes its place
            continue
        canary = None if wanted.canary is None else wanted.canary.version
        for state in found:
            if state.traffic == wanted and (state.version, state.canary) != (wanted.stable.version, canary):
                note(now)
                return state.refused or f"version {wanted.stable.version} does not answer"
        if all(state.traffic == wanted for state in found):
            return None
    note(now)
    raise TimeoutError(f"the replicas did not take over version {wanted.stable.version} within {seconds:g} seconds")


def canary_verdict() -> Verdict | None:
    """On the canary, over all replicas; None where there is none."""
    found = [state.comparison for state in states() if state.comparison is not None]
    return judge(together(found)) if found else None


class Follower:
    """Keeps the application at what a registry says. resolve: who shall answer; note: takes the version of a
    canary and the verdict on it."""

    def __init__(self, resolve: Callable[[], Traffic], note: Callable[[str, str], None]) -> None:
        self.resolve, self.note = resolve, note
        self._refused: Traffic | None = None
        self._told: str | None = None

    def look(self) -> None:
        """Look once. What cannot be done is said once on standard error, and tried again at the next look."""
        try:
            wanted = self.resolve()
            if wanted != self._refused:
                self._change(wanted)
            if wanted.canary is not None and (found := canary_verdict()) is not None:
                self.note(wanted.canary.version, found.sentence)
            self._told = None
        except Exception as trouble:  # whatever a registry on a network, or a cluster in trouble, raises
            if str(trouble) != self._told:
                print(f"the registry is not followed at the moment: {trouble}", file=sys.stderr, flush=True)
            self._told = str(trouble)

    def _change(self, wanted: Traffic) -> None:
        now = running()
        if now is None or now.traffic == wanted:
            return
        refused = switch(wanted)
        self._refused = wanted if refused else None  # not again, until the registry says something else
        what = f"not served, the old version stays: {refused}" if refused else f"now answers {wanted.shown}"
        print(what, file=sys.stderr, flush=True)
