"""The JPEG engine of each node: without a C compiler a node decodes more slowly, and other pixels by a little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
    asked = [
        task.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU")
    ]
    answered, late = ray.wait(asked, num_returns=len(asked), timeout=PATIENCE)
    for task in late:
        ray.cancel(task)
    return list(ray.get(answered))


def _engine_here() -> str:
    return jpeg_region.best().name


def engines_shown(engines: Sequence[str], where: str = "node") -> str:
    """`libjpeg`, or `libjpeg on 3 nodes, wheels on 1 (for want of a C compiler: a third slower)`."""
    counts = Counter(engines).most_common()
    words = []
    for name, count in counts:
        on = f" on {count} {where}{'' if count == 1 else 's'}" if len(counts) > 1 else ""
        words.append(f"{name}{on}" + (f" ({WANTING[name]})" if name in WANTING else ""))
    return ", ".join(words)
