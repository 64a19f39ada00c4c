"""The nodes of the connected cluster: those that are up, and those that its autoscaler may add.

Ray Train asks Ray's own record of the autoscaler's node types, which only hosted clusters write (Ray 2.60). Without
it: RESNET_ADDABLE_NODES, and on a head that `ray up` has started the cluster's own file, which it leaves there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.cluster.connection import may_grow
from pipelines.cluster.planning.resource_plan import Node, NodeKind, Wishes, resources_of, with_added
from pipelines.cluster.ray_internals import autoscaled_types
from pipelines.run import Run

ADDABLE = "RESNET_ADDABLE_NODES"
CLUSTER_FILE = "~/ray_bootstrap_config.yaml"  # `ray up` leaves it on the head
MANY = 1000  # nodes of a type without a limit
IS_HEAD = "node:__internal_head__"  # a resource of the head
WORDS = re.compile(r"\s*(\d+)\s*x\s*([\d.]+)\s*CPUs?(?:\s+(?:and\s+)?(\d+)\s*GPUs?)?\s*")


class Addable(NamedTuple):
    """Node types that an autoscaler knows; limit: nodes of all types beside the head, or None."""

    types: tuple[NodeKind, ...] = ()
    limit: int | None = None


def known_nodes() -> tuple[Node, ...]:
    """The nodes that take work: first those that are up. ValueError: RESNET_ADDABLE_NODES cannot be read."""
    up = nodes_up()
    if not may_grow():
        return up
    found = addable_nodes()
    return with_added(up, found.types, None if found.limit is None else found.limit - len(_beside_the_head()))


def wishes(run: Run) -> Wishes:
    """The request of a run to the connected cluster. ImageNet on CPUs takes years: on a cluster it must be said."""
    needs_gpu = may_grow() and run.recipe.network.startswith("imagenet-")
    return Wishes(run.scaling, run.recipe.passes, run.data.decode, needs_gpu)


def nodes_up() -> tuple[Node, ...]:
    """The nodes that are up and have CPUs."""
    return tuple(node for node in map(resources_of, _alive()) if node.cpus > 0)


def addable_nodes() -> Addable:
    """The nodes that the autoscaler may have, by the first source that says."""
    if (words := os.environ.get(ADDABLE)) is not None:
        return Addable(parsed_types(words))
    if types := autoscaled_types():
        return Addable(tuple(_typed(MANY if count < 0 else count, resources) for count, resources in types))
    file = Path(CLUSTER_FILE).expanduser()
    return of_cluster_file(file.read_text()) if _is_on_head() and file.is_file() else Addable()


def parsed_types(words: str) -> tuple[NodeKind, ...]:
    """`8 x 48 CPUs 4 GPUs, 4 x 64 CPUs`. ValueError: it is written otherwise."""
    found = [WORDS.fullmatch(part) for part in words.split(",") if part.strip()]
    if any(match is None for match in found):
        raise ValueError(f"{ADDABLE} must be like `8 x 48 CPUs 4 GPUs, 4 x 64 CPUs`, got {words}")
    return tuple(NodeKind(int(m[1]), float(m[2]), float(m[3] or 0)) for m in found if m is not None)


def of_cluster_file(text: str) -> Addable:
    """The node types of a file for `ray up`, but for the head's. Those without resources are passed over.

    For AWS and others `ray up` writes down the resources of a type that names none.
    """
    import yaml

    config: Any = yaml.safe_load(text)
    most = int(config.get("max_workers") or 0)
    kinds: Mapping[str, Any] = config.get("available_node_types") or {}
    workers = [kind for name, kind in kinds.items() if name != config.get("head_node_type")]
    types = [_typed(int(kind.get("max_workers", most)), kind.get("resources") or {}) for kind in workers]
    return Addable(tuple(kind for kind in types if kind.cpus > 0 and kind.most > 0), most)


def _typed(count: int, resources: Mapping[str, Any]) -> NodeKind:
    return NodeKind(count, float(resources.get("CPU", 0)), float(resources.get("GPU", 0)))


def _alive() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _beside_the_head() -> list[dict[str, Any]]:
    return [node for node in _alive() if IS_HEAD not in node["Resources"]]


def _is_on_head() -> bool:
    import ray

    here = ray.get_runtime_context().get_node_id()
    return any(node["NodeID"] == here and IS_HEAD in node["Resources"] for node in _alive())
