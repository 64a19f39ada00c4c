"""Every use of a private name of Ray, each with what it buys."""

from __future__ import annotations

import os
import time
from functools import partialmethod
from typing import Any


def await_agent(node: str, patience: float = 120.0) -> None:
    """Wait for the agent that takes a node's jobs: on a busy machine it comes later than the 10 s that Ray waits."""
    from ray.dashboard.consts import DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX
    from ray.experimental.internal_kv import _internal_kv_get

    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if _internal_kv_get(f"{DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX}{node}", namespace="dashboard") is not None:
            return
        time.sleep(0.1)


def free_places() -> bool:
    """Remove the placement groups that a lost controller left, which hold the CPUs that the next one needs.

    Ray Train's own cleaner asks the dashboard whether the controller lives, and waits for ever where there is none.
    A trial of a sweep leaves them: they cannot be told from those of the other trials. Whether they are gone.
    """
    import ray
    from ray._raylet import PlacementGroupID  # pyright: ignore[reportAttributeAccessIssue]  compiled
    from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

    here = ray.get_runtime_context()
    if here.get_actor_id() is not None:
        return False
    for name, found in placement_group_table().items():
        if name.endswith(here.get_job_id()) and found["state"] != "REMOVED":  # an id ends with that of its job
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))
    return True


def lean_trainer(may_grow: bool) -> Any:
    """TorchTrainer without the three actors that a run does not need; each is a process that a start waits for.

    DatasetManager hands out datasets: ours are made by the workers. PlacementGroupCleaner removes the places of a lost
    controller: free_places does, but for a trial of a sweep, which keeps it. AutoscalingCoordinator asks for nodes,
    and tells an elastic run of its share of them: not asked where there can be none.
    """
    import ray
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

    is_trial = ray.get_runtime_context().get_actor_id() is not None
    spared = (DatasetsCallback,) if is_trial else (DatasetsCallback, PlacementGroupCleanerCallback)

    class Unasking(FixedScalingPolicy):
        """The same workers always, and no word to an autoscaler."""

        def after_controller_start(self, train_run_context: Any) -> None:
            """Ask for nothing."""

        def _maybe_send_resource_request(self) -> None:
            """Ask for nothing, then or later."""

    class LeanTrainer(TorchTrainer):
        """Ray Train's own in all else."""

        def _create_default_callbacks(self) -> list[Any]:
            return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, spared)]

        def _initialize_and_run_controller(self, **given: Any) -> Any:
            if isinstance(given["scaling_policy"], FixedScalingPolicy) and not may_grow:
                given["scaling_policy"] = Unasking(self.scaling_config)
            return super()._initialize_and_run_controller(**given)

    return LeanTrainer


def stay_on_loopback(show_logs: bool) -> None:
    """Make each Ray that this process starts listen on the loopback interface only, with two processes less.

    show_logs: keep the process that hands on the workers' lines.
    """
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
    spared = {"include_log_monitor": show_logs, "no_monitor": True}
    initialise: Any = partialmethod(RayParams.__init__, dashboard_agent_listen_port=0, **spared)
    RayParams.__init__ = initialise


def note_address(address: str, folder: str) -> None:
    """Write where a Ray listens into its folder, where a job looks for it."""
    from ray._private.utils import write_ray_address

    write_ray_address(address, folder)


def noted_address() -> str | None:
    """Address that the last `ray start --head` noted on this machine, if any; it may have ended since."""
    from ray._private.utils import read_ray_address

    return read_ray_address()
