"""Everything of Ray that is private, in one place: what each use buys, and what happens without it.

A name without a promise may be gone with Ray's next version. Each use has a fallback that works, is in PRIVATE_NAMES,
and says so once in the log where it had to do without; a test imports every name. RESNET_WITHOUT_INTERNALS=1 forces it.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import time
from collections.abc import Callable
from functools import cache, partial, partialmethod
from typing import Any, TypeVar

from pipelines.cluster.store_actor import store_actor

log = logging.getLogger(__name__)
WITHOUT = "RESNET_WITHOUT_INTERNALS"

Answer = TypeVar("Answer")
FAILURES = "ray.train.v2._internal.execution.failure_handling"
# Each private name of Ray, and what it buys.
PRIVATE_NAMES: dict[str, str] = {
    "ray.experimental.internal_kv._internal_kv_put": "statuses of trainings without a process for them, 1 ms a call",
    "ray.experimental.internal_kv._internal_kv_get": "the same",
    "ray.experimental.internal_kv._internal_kv_del": "the same",
    "ray.experimental.internal_kv._internal_kv_list": "the same",
    "ray._private.utils.write_ray_address": "processes of a private Ray find it, and no other on the machine",
    "ray._private.ray_constants.ENABLE_RAY_CLUSTER": "a private Ray listens on the loopback interface only",
    "ray._raylet.Config.initialize": "the same, where Ray was imported before",
    "ray._private.parameter.RayParams": "two processes less, 2 s of a job's start; no fixed port for the agent",
    "ray.dashboard.consts.DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX": "a job waits for a late agent on a busy machine",
    "ray._private.state.state.get_cluster_config": "nodes that a hosted cluster may add are planned with",
    "ray._raylet.PlacementGroupID": "a training goes on at once where Ray Train's controller was killed",
    "ray.data._internal.execution.execution_callback.ExecutionCallback": "0.79 instead of 0.60 of the bare decode loop",
    "ray.train.v2._internal.callbacks.datasets.DatasetsCallback": "an actor less to start, 0.4 s",
    "ray.train.v2._internal.callbacks.placement_group_callback.PlacementGroupCleanerCallback": "the same",
    "ray.train.v2._internal.execution.scaling_policy.FixedScalingPolicy": "the same, where no node can be added",
    f"{FAILURES}.DefaultFailurePolicy": "a mistake starts no second try, 8 s",
    f"{FAILURES}.FailureDecision": "the same",
}


class Missing(Exception):
    """A private name is not there, or fallbacks are forced."""


def private(name: str) -> Any:
    """The object of a private name. Raises Missing if Ray lacks it."""
    if os.environ.get(WITHOUT) == "1":
        raise Missing(f"{name} is not used: {WITHOUT}=1")
    assert name in PRIVATE_NAMES
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        try:
            for part in parts[cut:]:
                found = getattr(found, part)
        except AttributeError:
            break
        return found
    raise Missing(f"this Ray has no {name}")


def missing_ray_names() -> list[str]:
    """The private names that the installed Ray lacks."""
    return [name for name in PRIVATE_NAMES if not _is_there(name)]


def _is_there(name: str) -> bool:
    try:
        private(name)
    except Missing:
        return False
    return True


@cache
def _tell(sentence: str) -> None:
    log.warning("%s", sentence)


def _or_else(wanted: Callable[[], Answer], fallback: Callable[[], Answer], lost: str) -> Answer:
    """The result of `wanted`, or of `fallback` with a line in the log where a private name is missing."""
    try:
        return wanted()
    except (Missing, AttributeError, TypeError) as error:
        _tell(f"{lost}: {error}")
        return fallback()


# --- A key-value store of the cluster ---------------------------------------------------------------------------------


NAMED = {"del": "remove"}  # what the actor calls it


def _kept(action: str, *words: Any, **options: Any) -> Any:
    """The answer of the store to put, get, del or list."""
    import ray

    return _or_else(
        lambda: private(f"ray.experimental.internal_kv._internal_kv_{action}")(*words, **options),
        lambda: ray.get(getattr(store_actor(), NAMED.get(action, action)).remote(*words, *options.values())),
        "postings go through an actor",
    )


def put(key: str, value: bytes, overwrite: bool = True) -> None:
    """Keep a value under a key, for all processes of the cluster."""
    _kept("put", key, value, overwrite=overwrite)


def get(key: str) -> bytes | None:
    """The value of a key, or None."""
    return _kept("get", key)


def delete(key: str) -> None:
    """Forget a key."""
    _kept("del", key)


def keys_of(prefix: str) -> list[str]:
    """All keys with a prefix."""
    return [key.decode() for key in _kept("list", prefix)]


# --- A Ray of this process's own --------------------------------------------------------------------------------------


def note_address(address: str, folder: str) -> None:
    """Write down the address of a private Ray, where its jobs look first."""
    _or_else(
        lambda: private("ray._private.utils.write_ray_address")(address, folder),
        lambda: os.environ.update(RAY_ADDRESS=address),
        "jobs find this Ray by RAY_ADDRESS",
    )


def use_token() -> None:
    """Let this process and those that it starts speak to Ray by a token, if it has imported Ray before too."""
    os.environ["RAY_AUTH_MODE"] = "token"
    if "ray" in sys.modules:
        _or_else(lambda: private("ray._raylet.Config.initialize")(""), lambda: None, "Ray uses no token")


def stay_on_loopback(show_logs: bool) -> None:
    """Make each Ray that this process starts listen on 127.0.0.1 only, with two processes less.

    show_logs: keep the process that hands on the workers' lines.
    """
    # Read by Ray at import: without it Ray binds the machine's outward address, whatever node address is asked for.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

    def wanted() -> None:
        # The same for a process that has imported Ray before: both settings are read once, at import.
        private("ray._private.ray_constants.ENABLE_RAY_CLUSTER")
        constants: Any = importlib.import_module("ray._private.ray_constants")
        constants.ENABLE_RAY_CLUSTER = False
        private("ray._raylet.Config.initialize")("")
        parameters = private("ray._private.parameter.RayParams")
        # A node's agent, which takes jobs, wants port 52365 and goes without where another Ray has it; any free one
        # serves. One process hands on workers' lines, one would ask a cloud for more nodes.
        spared: Any = {"include_log_monitor": show_logs, "no_monitor": True}
        parameters.__init__ = partialmethod(parameters.__init__, dashboard_agent_listen_port=0, **spared)

    _or_else(wanted, lambda: None, "this Ray listens on all interfaces, guarded by its token")


def await_agent(node: str, patience: float = 120.0) -> None:
    """Wait for the agent that takes a node's jobs: on a busy machine it comes later than the 10 s that Ray waits."""

    def wanted() -> None:
        prefix = private("ray.dashboard.consts.DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX")
        look = private("ray.experimental.internal_kv._internal_kv_get")
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and look(f"{prefix}{node}", namespace="dashboard") is None:
            time.sleep(0.1)

    _or_else(wanted, lambda: time.sleep(10), "the agent that takes jobs is given ten seconds")


# --- Nodes that may come ----------------------------------------------------------------------------------------------


def autoscaled_types() -> list[tuple[int, dict[str, int]]]:
    """Nodes that the autoscaler may have, as Ray Train looks them up: how many (-1: any number) with which resources.

    Empty where nobody has told Ray: `ray up` and KubeRay do not (Ray 2.60).
    """

    def wanted() -> list[tuple[int, dict[str, int]]]:
        config = private("ray._private.state.state.get_cluster_config")()
        groups = config.node_group_configs if config is not None else ()
        return [(group.max_count, dict(group.resources)) for group in groups if group.resources]

    return _or_else(wanted, list, "nodes that may be added are known by RESNET_ADDABLE_NODES alone")


# --- Ray Data ---------------------------------------------------------------------------------------------------------


@cache
def paced(pace: Callable[[], float]) -> type | None:
    """A callback by which Ray Data's executor looks at its tasks no more often than every pace() seconds, or None.

    It is a thread of the consumer, here of a training worker. Where all tasks have blocks ready that nobody has room
    for, Ray 2.60 looks again at once, 800 times a second, and holds Python's lock while it does: threads that decode
    beside it get a third of their speed.
    """

    def wanted() -> type | None:
        base = private("ray.data._internal.execution.execution_callback.ExecutionCallback")

        class Paced(base):  # pyright: ignore[reportGeneralTypeIssues]
            """Waits at the end of each look."""

            last = 0.0

            def on_execution_step(self, executor: Any) -> None:
                """Called by the executor's thread."""
                time.sleep(max(0.0, self.last + pace() - time.monotonic()))
                self.last = time.monotonic()

        return Paced

    return _or_else(wanted, lambda: None, "Ray Data's executor is not slowed down")


# --- Ray Train --------------------------------------------------------------------------------------------------------


def free_places() -> bool:
    """Remove the placement groups that a lost controller left, which hold the CPUs that the next one needs.

    Ray Train's own cleaner asks the dashboard whether the controller lives, and waits for ever where there is none.
    A trial of a sweep leaves them: they cannot be told from those of the other trials. Whether they are gone.
    """
    import ray
    from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

    here = ray.get_runtime_context()
    if here.get_actor_id() is not None:
        return False

    def wanted() -> bool:
        group_id = private("ray._raylet.PlacementGroupID")
        for name, found in placement_group_table().items():
            if name.endswith(here.get_job_id()) and found["state"] != "REMOVED":  # an id ends with that of its job
                remove_placement_group(PlacementGroup(group_id(bytes.fromhex(name))))
        return True

    return _or_else(wanted, lambda: False, "a training whose controller was lost is started again by hand")


def lean_trainer(may_grow: bool, given_up: Callable[[], bool]) -> Any:
    """Ray's TorchTrainer without three actors that a run does not need; each is a process that a start waits for.

    DatasetManager hands out datasets: workers make ours. PlacementGroupCleaner does what free_places does, but for a
    trial, which keeps it. AutoscalingCoordinator asks for nodes, where the cluster `may_grow`, and tells an elastic run
    of its share. given_up: asked after a failure, whether another try would end the same way.
    """
    from ray.train.torch import TorchTrainer

    return _or_else(partial(_lean_trainer, may_grow, given_up), lambda: TorchTrainer, "Ray Train starts more actors")


def _lean_trainer(may_grow: bool, given_up: Callable[[], bool]) -> type:
    import ray
    from ray.train.torch import TorchTrainer

    datasets = private("ray.train.v2._internal.callbacks.datasets.DatasetsCallback")
    cleaner = private("ray.train.v2._internal.callbacks.placement_group_callback.PlacementGroupCleanerCallback")
    policy = private("ray.train.v2._internal.execution.scaling_policy.FixedScalingPolicy")
    is_trial = ray.get_runtime_context().get_actor_id() is not None
    spared = (datasets,) if is_trial else (datasets, cleaner)

    class Unasking(policy):  # pyright: ignore[reportGeneralTypeIssues]
        """The same workers always, and no word to an autoscaler, at the start or later."""

        after_controller_start = _maybe_send_resource_request = lambda *_: None

    class Heeding(private(f"{FAILURES}.DefaultFailurePolicy")):
        """Tries again, but not what would end the same way."""

        def make_decision(self, training_failed_error: Any) -> Any:
            decision = super().make_decision(training_failed_error)
            return private(f"{FAILURES}.FailureDecision").RAISE if given_up() else decision

    class LeanTrainer(TorchTrainer):
        """Ray Train's own in all else."""

        def _create_default_callbacks(self) -> list[Any]:
            return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, spared)]

        def _initialize_and_run_controller(self, **given: Any) -> Any:
            if isinstance(given["scaling_policy"], policy) and not may_grow:
                given["scaling_policy"] = Unasking(self.scaling_config)
            given["failure_policy"] = Heeding(self.run_config.failure_config)
            return super()._initialize_and_run_controller(**given)

    return LeanTrainer
