"""The workers of a training as Ray Train is asked for them: how many, with what, where, in which environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.cluster.planning.resource_plan import resources_per_worker
from pipelines.run import Scaling
from resnet.host import glibc_allocator

if TYPE_CHECKING:
    from ray.train import ScalingConfig

# cuBLAS reads it when CUDA starts: with more workspaces two runs may add in another order.
DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


def scaling_config(scaling: Scaling) -> ScalingConfig:
    """Ray Train's, of a scaling in which nothing is left open."""
    from ray.train import ScalingConfig

    return ScalingConfig(
        num_workers=(scaling.least, scaling.most) if scaling.is_elastic else scaling.most,
        use_gpu=bool(scaling.gpu),
        resources_per_worker=resources_per_worker(scaling),
        # GPUs talk fastest inside a node. Two workers on one node's CPUs would leave another's idle.
        placement_strategy="PACK" if scaling.gpu else "SPREAD",
    )


def worker_environment(scaling: Scaling) -> dict[str, str]:
    """Environment variables of a worker, which its libraries read when it starts."""
    if not scaling.gpu:
        return glibc_allocator.KEPT  # on a GPU tensors are not the system's business
    return DETERMINISTIC if scaling.deterministic else {}
