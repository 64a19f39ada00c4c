"""Profile of a training step, as a picture: rank 0 of a run inside Ray Train, under torch's profiler.

    python benchmarks/training/step_profile.py --cifar CIFAR-SHARDS --imagenet SHARDS --picture docs/step-profile.svg \
      --out results/step_profile.json

The runs are those of train_step.py: ResNet-20 on CIFAR-10, batch 128, and ResNet-18 at 224 pixels, batch 32,
the one resident, the other streamed in random resized crops. Some steps warm up, some are timed as they are, some are
profiled. Two figures, each of whole steps: what the loop does, by its own parts, and which operators take the CPU.
The last line on stdout is JSON. On a GPU the parts are the host's time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

WARM, PLAIN, PROFILED = 6, 12, 12  # steps
# Of the loop, in its order. A resident batch is cropped while it is waited for; the copy normalises too.
PARTS = ("wait for the batch", "copy", "forward", "backward", "update")
OPERATORS = (
    ("convolution", r"conv"),
    ("batch norm", r"batch_norm"),
    ("ReLU, addition", r"relu|threshold|aten::add|pool"),
    ("copies, casts", r"copy|clone|contiguous|fill|zero|cat|empty"),
    ("update", r"sgd|foreach|Optimizer"),
    ("DDP, all-reduce", r"c10d|gloo|Distributed|reduce|bucket"),
    ("everything else", r""),
)


def profiled(folder: str, plain: Any) -> Any:
    """Task.training, under the profiler for PROFILED steps of rank 0, whose sums are written to `folder`."""
    from torch.profiler import ProfilerActivity, profile, record_function

    def batches(task: Any, *place: int) -> Iterator[Any]:
        profiler = profile(activities=[ProfilerActivity.CPU])
        source, begun, seconds = plain(task, *place), 0.0, {}
        for step in range(sys.maxsize):
            if step in (WARM, WARM + PLAIN, WARM + PLAIN + PROFILED):
                now = time.perf_counter()
                seconds[step], begun = now - begun, now
            if step == WARM + PLAIN:
                profiler.start()
                begun = time.perf_counter()
            if step == WARM + PLAIN + PROFILED:
                profiler.stop()
                if task.rank == 0:
                    _write(Path(folder), profiler, seconds)
            with record_function(PARTS[0]):
                batch = next(source, None)
            if batch is None:
                return
            yield batch

    return batches


def _write(folder: Path, profiler: Any, seconds: dict[int, float]) -> None:
    """Milliseconds a step: of the step, its parts, and the operators' own."""
    found = {row.key: row for row in profiler.key_averages()}
    own = {key: row.self_cpu_time_total / 1000 / PROFILED for key, row in found.items()}
    result = {
        "plain_ms": 1000 * seconds[WARM + PLAIN] / PLAIN,
        "profiled_ms": 1000 * seconds[WARM + PLAIN + PROFILED] / PROFILED,
        "parts": {part: found[part].cpu_time_total / 1000 / PROFILED for part in PARTS},
        "operators": {key: value for key, value in own.items() if key not in PARTS},
    }
    (folder / "profile.json").write_text(json.dumps(result))


def mark_parts() -> None:
    """Name the loop's parts for the profiler, in this process."""
    import torch
    from torch.profiler import record_function

    import pipelines.training.learner
    import pipelines.training.rank_data

    def named(owner: Any, attribute: str, part: str) -> None:
        inner = getattr(owner, attribute)

        def marked(*args: Any, **options: Any) -> Any:
            with record_function(part):
                return inner(*args, **options)

        setattr(owner, attribute, marked)

    named(pipelines.training.rank_data.RankData, "tensors", "copy")
    named(torch.nn.parallel.DistributedDataParallel, "forward", "forward")
    named(torch.Tensor, "backward", "backward")
    named(pipelines.training.learner, "update", "update")


def measure(network: str, data: str, workers: int, folder: str) -> dict[str, Any]:
    """One network: a run of a few steps inside Ray Train."""
    import pipelines.training.worker_loop
    from benchmarks.training.train_step import the_run
    from pipelines.training import fit

    def loop(config: dict[str, Any]) -> None:
        """Ray Train's function: pipelines/training/worker_loop.py's own, profiled."""
        import pipelines.training.rank_data
        import pipelines.training.worker_loop

        sys.path.insert(0, str(ROOT))
        pass

        mark_parts()
        pipelines.training.rank_data.RankData.training = profiled(
            folder, pipelines.training.rank_data.RankData.training
        )
        pipelines.training.worker_loop.train_worker(config)

    plain = pipelines.training.worker_loop.train_worker
    pipelines.training.worker_loop.train_worker = loop
    try:
        batch = 128 if network == "cifar" else 32
        run = the_run(network, data, workers, batch, network != "cifar", f"{folder}/runs")
        recipe = run.recipe.model_copy(update={"steps": WARM + PLAIN + PROFILED + 1})
        few = run.data.model_copy(update={"holdout": 256})
        fit.fit(run.model_copy(update={"recipe": recipe, "data": few}), show=False)
    finally:
        pipelines.training.worker_loop.train_worker = plain
    return summary(json.loads(Path(folder, "profile.json").read_text())) | {"batch": batch, "workers": workers}


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Parts and kinds of operators in percent of what they add up to."""
    step = found["profiled_ms"]
    parts = found["parts"] | {"the rest": max(0.0, step - sum(found["parts"].values()))}
    kinds = dict.fromkeys((name for name, _ in OPERATORS), 0.0)
    for key, own in found["operators"].items():
        kinds[next(name for name, words in OPERATORS if re.search(words, key))] += own
    return {
        "step_ms": round(found["plain_ms"], 2),
        "profiled_step_ms": round(step, 2),
        "parts_percent": _percent(parts),
        "operators_percent": _percent(kinds),
    }


def _percent(values: dict[str, float]) -> dict[str, float]:
    total = sum(values.values())
    return {name: round(100 * value / total, 2) for name, value in values.items()}


def draw(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Bars of 100 %, one a network, for the loop's parts and for the operators."""
    import matplotlib as mpl

    from pipelines.reports import figures

    with mpl.rc_context({**figures.STYLE, "axes.grid": False}):
        figure, panels = figures.blank(8.2, 1.5 + 0.55 * len(rows), 2)
        for axes, key, title in zip(
            panels, ("parts_percent", "operators_percent"), ("The loop's parts", "Operators, by CPU time"), strict=True
        ):
            _bars(axes, [(f"{name}\n{row['step_ms']:.0f} ms a step", row[key]) for name, row in rows.items()])
            axes.set_title(title)
        figure.savefig(path, metadata={"Date": None})


def _bars(axes: Any, rows: Sequence[tuple[str, dict[str, float]]]) -> None:
    from pipelines.reports.figures import SERIES

    names = list(rows[0][1])
    for height, (_, values) in enumerate(rows):
        left = 0.0
        for number, name in enumerate(names):
            color = (*SERIES, "#999999")[number]
            axes.barh(height, values[name], left=left, color=color, label=name if height == 0 else None)
            if values[name] >= 7:
                axes.text(
                    left + values[name] / 2,
                    height,
                    f"{values[name]:.0f} %",
                    ha="center",
                    va="center",
                    color="w",
                    size=7,
                )
            left += values[name]
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.set_xlim(0, 100)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.02), fontsize=8)


def main() -> None:
    """Parse, measure, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", help="shards of CIFAR-10")
    parser.add_argument("--imagenet", help="shards of photographs")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--picture", type=Path, help="file for the picture: .svg or .png")
    parser.add_argument("--out", type=Path, help="file for the result, too")
    words = parser.parse_args()
    given = {"cifar": ("ResNet-20, CIFAR-10", words.cifar), "resnet18": ("ResNet-18, 224 pixels", words.imagenet)}
    rows: dict[str, dict[str, Any]] = {}
    from benchmarks.training.single import commit
    from resnet.host.hardware import describe_hardware

    for network, (title, data) in given.items():
        if data is None:
            continue
        with tempfile.TemporaryDirectory(prefix="profile-", ignore_cleanup_errors=True) as folder:
            os.environ["RESNET_HOME"] = folder
            rows[title] = measure(network, data, words.workers, folder)
    result = {"command": f"benchmarks/training/step_profile.py {' '.join(sys.argv[1:])}", "commit": commit()}
    result |= {"hardware": describe_hardware(), "networks": rows}
    if words.out:
        words.out.write_text(json.dumps(result, indent=1) + "\n")
    if words.picture:
        draw(rows, words.picture)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
