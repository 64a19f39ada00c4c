"""The JPEG engine of each node: without a C compiler a node decodes more slowly, and other pixels by a little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from resnet.images import jpeg_region

PATIENCE = 60.0  # seconds for the answers of all nodes; a process of tasks imports for some
# Speeds on one core in docs/decisions/images.md: 3.6 where libjpeg reaches 5.3 times Pillow's.
WANTING = {
    "c": "for want of jpeglib.h",
    "wheels": "for want of a C compiler: a third slower",
}


def jpeg_engines(nodes: int) -> list[str]:
    """Engines of the nodes that are up and answer. nodes: how many there are; one is asked without Ray."""
    if nodes <= 1:
        return [jpeg_region.best().name]
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task: Any = ray.remote(_engine_here)
    names = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    places = [NodeAffinitySchedulingStrategy(name, soft=False) for name in names]
    asked = [task.options(num_cpus=0, scheduling_strategy=place).remote() for place in places]
    answered, late = ray.wait(asked, num_returns=len(asked), timeout=PATIENCE)
    for task in late:
        ray.cancel(task)
    return list(ray.get(answered))


def _engine_here() -> str:
    return jpeg_region.best().name


def engines_named(engines: Sequence[str]) -> str:
    """Those of all ranks, for a record: `libjpeg`, or `libjpeg on 3 ranks, wheels on 1 rank`."""
    return engines_shown(engines, "rank", {})


def engines_shown(engines: Sequence[str], where: str = "node", wanting: Mapping[str, str] = WANTING) -> str:
    """`libjpeg`, or `libjpeg on 3 nodes, wheels on 1 node (for want of a C compiler: a third slower)`."""
    counts = Counter(engines).most_common()
    words = []
    for name, count in counts:
        on = f" on {count} {where}{'' if count == 1 else 's'}" if len(counts) > 1 else ""
        words.append(f"{name}{on}" + (f" ({wanting[name]})" if name in wanting else ""))
    return ", ".join(words)
