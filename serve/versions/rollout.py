"""Change who answers while the application runs, by hand or as a registry says.

`switch` writes the wanted versions into Ray's key-value store, and each replica looks there once a second. Serve's own
user_config would take a replica out of service while it is reconfigured: while a checkpoint is loaded.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from functools import cache
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.util import list_named_actors

from resnet.frozen import Frozen
from resnet.host.proxy_exceptions import LOOPBACK
from serve.settings import Args
from serve.versions.attempts import Attempts, OwnNotes
from serve.versions.replica_states import ReplicaState
from serve.versions.traffic import Traffic

APPLICATION = "resnet"
DEPLOYMENT = "classifier"
KEY = "deployed"
CLOSING = "closing"  # noted where the job ends: cameras are told
LOOK = 1.0  # seconds between two looks of a replica
WITHOUT = "RESNET_WITHOUT_INTERNALS"  # environment variable: 1 does without Ray's private names, as pipelines does

# Each private name of Ray that serve uses, and what it buys.
PRIVATE_NAMES = {
    "ray.experimental.internal_kv._internal_kv_put": "the wanted versions are kept without an actor for them",
    "ray.experimental.internal_kv._internal_kv_get": "the same: a look of each replica a second, 1 ms",
    "ray.experimental.internal_kv._internal_kv_list": "the same",
    "ray.experimental.internal_kv._internal_kv_del": "the same",
    "ray.serve._private.replica.add_port_to_grpc_server": "a replica listens for Ray's own calls at its node's address",
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


def _notes_actor() -> Any:
    options: Any = {"name": "resnet-serve-notes", "namespace": "resnet", "get_if_exists": True, "lifetime": "detached"}
    return ray.remote(OwnNotes).options(num_cpus=0, **options).remote()


class ClusterNotes:
    """Notes that outlive every replica: in Ray's key-value store, or in an actor."""

    PREFIX = "resnet/serve/"

    def put(self, key: str, value: str, overwrite: bool = True) -> bool:
        """Keep a value; whether there was none before."""
        store = _internals()
        if store is None:
            return ray.get(_notes_actor().put.remote(key, value, overwrite))
        return not store._internal_kv_put(self.PREFIX + key, value.encode(), overwrite=overwrite)

    def get(self, key: str) -> str | None:
        """A value, or None."""
        store = _internals()
        if store is None:
            return ray.get(_notes_actor().get.remote(key))
        value = store._internal_kv_get(self.PREFIX + key)
        return None if value is None else value.decode()

    def keys(self, prefix: str) -> list[str]:
        """All keys that begin so."""
        store = _internals()
        if store is None:
            return ray.get(_notes_actor().keys.remote(prefix))
        found = store._internal_kv_list(self.PREFIX + prefix)
        return [name.decode().removeprefix(self.PREFIX) for name in found]

    def delete(self, key: str) -> None:
        """Forget a key."""
        store = _internals()
        if store is None:
            ray.get(_notes_actor().delete.remote(key))
        else:
            store._internal_kv_del(self.PREFIX + key)


def replica_alive(name: str) -> bool:
    """True if a replica is there, by the unique part of its name."""
    actors: list[Any] = list_named_actors(all_namespaces=True)
    return any(actor["name"].endswith(f"#{name}") for actor in actors)


def attempts_of(args: Args, replica: str) -> Attempts:
    """The way in which a replica loads versions on this cluster."""
    return Attempts(args, replica, ClusterNotes(), replica_alive)


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


def close_own_server() -> None:
    """Let this replica listen for calls of Ray's other processes at its node's address only, not at all of the machine.

    What arrives there is unpickled. Without the private name it stays as Ray has it, guarded by Ray's token alone.
    """
    if os.environ.get(WITHOUT) == "1":
        return
    try:
        from ray.serve._private import replica

        names: Any = replica
        add = names.add_port_to_grpc_server
    except (ImportError, AttributeError):
        log.warning("this Ray has no add_port_to_grpc_server: a replica listens for Ray's calls on all interfaces")
        return
    address = ray.util.get_node_ip_address()
    node = f"[{address}]" if ":" in address else address
    names.add_port_to_grpc_server = lambda server, asked: add(server, asked.replace("[::]", node))


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


class TrafficRefusal(Frozen):
    """The version that was wanted and is not served, and why."""

    traffic: Traffic
    reason: str


class Deployed(Frozen):
    """The application's arguments, and the versions that answer now. A replica with other arguments ignores it.

    refused: what was wanted last, where it is not served.
    """

    args: Args
    traffic: Traffic
    refused: TrafficRefusal | None = None


def read_deployed() -> Deployed | None:
    """The application on this cluster, as `deploy` and `switch` noted it; None where they did not."""
    value = ClusterNotes().get(KEY)
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


def given_up() -> str | None:
    """Why Ray Serve tries no more to run the application, in its words; None where it runs, or is being started."""
    there = serve.status().applications.get(APPLICATION)
    if there is None or there.status in ("RUNNING", "DEPLOYING", "DELETING", "NOT_STARTED"):
        return None
    if there.status == "UNHEALTHY" and any(
        count and state in ("RUNNING", "STARTING")
        for deployment in there.deployments.values()
        for state, count in deployment.replica_states.items()
    ):
        return None
    messages = [there.message, *(deployment.message for deployment in there.deployments.values())]
    return next((message.strip().splitlines()[-1] for message in messages if message.strip()), str(there.status))


def replicas() -> int:
    """Number of replicas that take requests, as Serve's controller counts them; at least 1."""
    there = serve.status().applications.get(APPLICATION)
    found = there.deployments.get(DEPLOYMENT) if there else None
    counts = found.replica_states.items() if found else ()
    return max(1, sum(count for state, count in counts if state == "RUNNING"))


def note(deployed: Deployed) -> None:
    """Write down what the replicas shall serve."""
    ClusterNotes().put(KEY, deployed.model_dump_json())


def states() -> list[ReplicaState]:
    """Of all replicas that run; none where the application is scaled to zero."""
    handle = serve.get_deployment_handle(DEPLOYMENT, APPLICATION)
    try:
        return list(handle.broadcast("state").results(timeout_s=10))
    except DeploymentUnavailableError:
        return []


def switch(wanted: Traffic, seconds: float = 900.0) -> str | None:
    """Change who answers, and return when all replicas have: None, or why a replica refuses it; then nothing changes.

    RuntimeError where nothing runs, TimeoutError.
    """
    now = running()
    if now is None:
        raise RuntimeError(f"application {APPLICATION} must run before its versions can be changed")
    now = now.model_copy(update={"refused": None})
    if now.traffic == wanted:
        note(now)
        return None
    attempts = attempts_of(now.args, "")
    for version in wanted.versions:  # somebody asks for them anew
        if version not in now.traffic.versions:
            attempts.forget(version)
    note(Deployed(args=now.args, traffic=wanted))
    try:
        reason = _taken_over(wanted, seconds)
    except BaseException:
        note(now)
        raise
    if reason is not None:
        note(now.model_copy(update={"refused": TrafficRefusal(traffic=wanted, reason=reason)}))
    return reason


def _taken_over(wanted: Traffic, seconds: float) -> str | None:
    """None when all replicas serve what is wanted; or why one refuses it."""
    beside = tuple(each.version for each in wanted.beside)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(LOOK / 2)
        try:
            found = states()
        except (RayError, TimeoutError):  # a replica has just died; another takes its place
            continue
        for state in found:
            if state.traffic == wanted and (state.version, state.beside) != (wanted.stable.version, beside):
                return state.refused or f"version {wanted.stable.version} does not answer"
        if all(state.traffic == wanted for state in found):
            return None
    raise TimeoutError(f"the replicas did not take over version {wanted.stable.version} within {seconds:g} seconds")


def note_refused(wanted: Traffic, reason: str) -> None:
    """Write down that what was wanted is not served: by replicas that began with it, from zero."""
    now = read_deployed()
    if now is not None:
        note(now.model_copy(update={"refused": TrafficRefusal(traffic=wanted, reason=reason)}))
