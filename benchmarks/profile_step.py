#!/usr/bin/env python3
"""Where the time of a training step goes: a picture, and the figures as the last line of stdout.

    python benchmarks/profile_step.py --out docs/profile.svg

The engine's own step (pipelines/learner.py: DDP, autocast, fused SGD) on one rank of this process, without Ray, on
random images: torch's profiler sums the time of each operation, by itself. What no operation accounts for is Python,
autograd and DDP. Reading a batch from memory and normalising it are timed beside the profiler.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.single import commit
from pipelines.feed import Feed
from pipelines.learner import Learner
from pipelines.run import Run, standard
from pipelines.stream import Resident, Split
from pipelines.task import Task
from resnet import hardware
from resnet.classes import ImageClass
from resnet.settings import Images

CASES = {"cifar10-resnet20": (32, 128, 20), "imagenet-resnet18": (224, 16, 6)}  # side, batch, steps
KINDS = (  # the first that a name contains
    ("convolution, backward", ("convolution_backward",)),
    ("convolution, forward", ("convolution",)),
    ("batch norm", ("batch_norm",)),
    ("optimiser", ("sgd",)),
    ("all-reduce", ("gloo", "c10d", "allreduce")),
    ("casts and copies", ("copy", "to", "clone", "contiguous")),
    ("ReLU, addition, pooling", ("relu", "threshold", "add", "pool", "mean", "max")),
)
OTHER, BETWEEN = "fc, loss, other operations", "Python, autograd, DDP"
DATA, NORMALISE = "batch from memory", "normalisation"


def main(argv: list[str]) -> int:
    """Profile all cases and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="SVG file")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        found = {name: parts_of_a_step(name, *case) for name, case in CASES.items()}
        torch.distributed.destroy_process_group()
    draw(found, args.out)
    print(json.dumps({"benchmark": "profile_step", "hardware": hardware.describe(), "commit": commit(), "ms": found}))
    return 0


def parts_of_a_step(network: str, size: int, batch: int, steps: int) -> dict[str, float]:
    """Milliseconds of a step by kind of work, the largest first."""
    task = random_task(network, size, batch, (steps + 5) * batch)
    learner, batches = Learner(task, None), task.training(0, 0)
    for step in range(3):
        learner.step(*task.tensors(next(batches)), 0, step, 0.1)
    ms: dict[str, float] = {}
    fetched, ms[DATA] = timed(lambda: [next(batches) for _ in range(steps)], steps)
    ready, ms[NORMALISE] = timed(lambda: [task.tensors(b) for b in fetched], steps)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        _, whole = timed(lambda: [learner.step(*pair, 0, 3 + i, 0.1) for i, pair in enumerate(ready)], steps)
    for event in profiler.key_averages():
        kind = next((k for k, words in KINDS if any(word in event.key.lower() for word in words)), OTHER)
        ms[kind] = ms.get(kind, 0.0) + event.self_cpu_time_total / 1e3 / steps
    ms[BETWEEN] = whole - sum(value for kind, value in ms.items() if kind not in (DATA, NORMALISE))
    return {kind: round(value, 2) for kind, value in sorted(ms.items(), key=lambda pair: -pair[1])}


def timed(work: Any, steps: int) -> tuple[Any, float]:
    """What it gives, and milliseconds a step."""
    began = time.perf_counter()
    result = work()
    return result, 1e3 * (time.perf_counter() - began) / steps


def random_task(network: str, size: int, batch: int, examples: int) -> Task:
    """A task of the engine on random images in memory."""
    run = standard(network)
    images = Images(size=size, policy="pad-crop", pad=4)
    optim = run.recipe.optim.model_dump() | {"batch_size": batch}
    recipe = run.recipe.model_dump() | {"images": images, "optim": optim, "bn_examples": None}
    run = Run(**(run.model_dump() | {"recipe": recipe, "scaling": {"workers": 1, "threads": 1}}))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (examples, size, size, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, examples)
    split = Split("memory", "train", (), (), (examples,))
    classes = tuple(ImageClass(id=i, wnid=str(i), name=str(i)) for i in range(10))
    normal = {"mean": np.full((3, size, size), 120, np.float32), "std": np.full((3, 1, 1), 60, np.float32)}
    task = Task(run, Feed(split, split, classes, normal, {}), 0, 1, torch.device("cpu"))
    task.resident["train"] = Resident(pixels, labels)
    return task


def draw(found: dict[str, dict[str, float]], out: str) -> None:
    """One bar a network, in percent of the step."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "profile"})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 2.6), layout="constrained")
    kinds = list(dict.fromkeys(kind for parts in found.values() for kind in parts))
    colors = dict(zip(kinds, _colors(), strict=False))
    for row, (_, parts) in enumerate(found.items()):
        left, whole = 0.0, sum(parts.values())
        for kind, value in parts.items():
            share = 100 * value / whole
            axes.barh(row, share, left=left, color=colors[kind], label=kind if row == 0 else None, height=0.6)
            if share > 4:
                axes.text(left + share / 2, row, f"{share:.0f}", ha="center", va="center", fontsize=8)
            left += share
    names = [f"{name}\n{sum(parts.values()):.0f} ms, batch {CASES[name][1]}" for name, parts in found.items()]
    axes.set_yticks(range(len(found)), names)
    axes.set_xlim(0, 100)
    axes.set_xlabel("percent of a training step, one core")
    axes.invert_yaxis()
    axes.legend(fontsize=7, ncols=2, loc="upper left", bbox_to_anchor=(1.0, 1.05), frameon=False)
    figure.savefig(out, metadata={"Date": None})


def _colors() -> Iterator[Any]:
    from matplotlib import colormaps

    return iter(colormaps["tab20"].colors[1::2] + colormaps["tab20"].colors[::2])  # pyright: ignore


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
