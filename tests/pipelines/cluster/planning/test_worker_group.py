"""A plan is placed as it is printed: on nodes of a cluster on this machine, with GPUs that are pretended."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pipelines.cluster.planning.worker_group import scaling_config, worker_environment
from pipelines.run import Scaling

ROOT = Path(__file__).resolve().parents[4]

# A cluster of its own, in a process of its own: the Ray of the other tests is one node. Its workers say where they are.
PLACED = """
import json, os, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from ray.train import RunConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from pipelines.cluster.planning.known_nodes import nodes_up
from pipelines.cluster.planning.resource_plan import Wishes, plan_training
from pipelines.cluster.planning.waiting import has_waiting_workers
from pipelines.cluster.planning.worker_group import scaling_config
from pipelines.run import Scaling
from pipelines.tuning.trial_slots import share_out

def where(config):
    import ray.train
    here = ray.get_runtime_context()
    rank = ray.train.get_context().get_world_rank()
    found = {"node": here.get_node_id(), "gpus": here.get_accelerator_ids().get("GPU", [])}
    Path(config["folder"], f"{rank}.json").write_text(json.dumps(found))

def placed(name, passes, **asked):
    plan = plan_training(nodes_up(), Wishes(Scaling(**asked), passes))
    folder = Path(sys.argv[1], name)
    folder.mkdir()
    DataParallelTrainer(where, train_loop_config={"folder": str(folder)}, scaling_config=scaling_config(plan.scaling),
                        run_config=RunConfig(name=name, storage_path=sys.argv[1])).fit()
    names = {node["NodeID"]: (node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)) for node in ray.nodes()}
    found = [json.loads(file.read_text()) for file in folder.glob("*.json")]
    held = sorted((*names[one["node"]], one["node"], sorted(one["gpus"])) for one in found)
    return {"plan": plan.workers, "nodes": [node[:2] for node in plan.nodes], "shown": plan.shown,
            "held": [(cpus, gpus, gpu) for cpus, gpus, _, gpu in held], "places": len({one[2] for one in held})}

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
for cpus, gpus in ((8, 0), (8, 2)):
    cluster.add_node(num_cpus=cpus, num_gpus=gpus)
ray.init(cluster.address, log_to_driver=False)
cluster.wait_for_nodes()
answer = {"gpus": placed("gpus", 8), "cpus": placed("cpus", 8, gpu=False, workers=2)}

slots = share_out(nodes_up(), Wishes(Scaling(workers=1), 2), 3, 3)
each = {"num_cpus": slots.scaling.cpus_per_worker, "num_gpus": slots.scaling.gpus_per_worker}

@ray.remote(**each)
class Trial:
    def gpu(self):
        return ray.get_runtime_context().get_accelerator_ids()["GPU"]

trials = [Trial.remote() for _ in range(slots.at_once)]
answer["trials"] = sorted(gpu for (gpu,) in ray.get([trial.gpu.remote() for trial in trials], timeout=60))
answer["slots"] = slots.at_once
print(json.dumps(answer))
sys.stdout.flush()
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_plan_is_placed_as_printed(tmp_path: Path) -> None:
    """A head that takes no work, a node with two GPUs, one with CPUs alone."""
    ours = ("RAY_", "RESNET_", "CUDA_VISIBLE_DEVICES")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    token = tmp_path / "token"
    token.write_text("0" * 64)
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PYTHONPATH": str(ROOT)}
    variables |= {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "RAY_USAGE_STATS_ENABLED": "0"}
    # Not where Ray notes its address for others on this machine. A socket's path is short.
    with tempfile.TemporaryDirectory(prefix="nodes-", dir="/tmp") as folder:
        done = subprocess.run(
            [sys.executable, "-c", PLACED, str(tmp_path)],
            env=clean | variables | {"RAY_TMPDIR": folder}, capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: Any = json.loads(done.stdout.splitlines()[-1])
    for name, nodes, gpus in (("gpus", 1, [["0"], ["1"]]), ("cpus", 2, [[], []])):
        case = found[name]
        planned = [tuple(node) for node, count in zip(case["nodes"], case["plan"], strict=True) for _ in range(count)]
        assert [(cpus, count) for cpus, count, _ in case["held"]] == sorted(planned), case["shown"]
        assert case["places"] == sum(count > 0 for count in case["plan"]) == nodes
        assert sorted(gpu for *_, gpu in case["held"]) == gpus
    assert found["slots"] == 3
    assert len(found["trials"]) == 3, "all run side by side"
    assert max(found["trials"].count(gpu) for gpu in found["trials"]) <= 2


@pytest.mark.parametrize(
    ("asked", "workers", "resources", "strategy"),
    [
        ({"workers": 4, "gpu": True, "cpus_per_worker": 6}, 4, {"CPU": 6, "GPU": 1}, "PACK"),
        ({"workers": "1:4", "gpu": False, "cpus_per_worker": 0.5}, (1, 4), {"CPU": 0.5}, "SPREAD"),
        (
            {"workers": 1, "gpu": True, "gpus_per_worker": 0.5, "cpus_per_worker": 1},
            1, {"CPU": 1, "GPU": 0.5}, "PACK",
        ),
    ],
)  # fmt: skip
def test_ray_train_is_asked_for_what_was_planned(
    asked: dict[str, Any], workers: Any, resources: dict[str, float], strategy: str
) -> None:
    config = scaling_config(Scaling(**asked))
    assert (config.num_workers, config.resources_per_worker) == (workers, resources)
    assert (config.use_gpu, config.placement_strategy) == (asked["gpu"], strategy)


def test_workers_keep_memory_on_cpus_and_cublas_in_order_on_gpus() -> None:
    assert "MALLOC_ARENA_MAX" in worker_environment(Scaling(gpu=False, deterministic=True))
    assert worker_environment(Scaling(gpu=True)) == {}
    assert worker_environment(Scaling(gpu=True, deterministic=True)) == {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
