#!/usr/bin/env python3
"""A training of many workers on one machine, whose steps are a sleep: what plan, stream, Ray and records cost a worker.

    python benchmarks/training/scaling.py --out results/scaling.json              1, 2, 4 ... 64 workers as memory bears
    python benchmarks/training/scaling.py --workers 1 4 --steps 20 --epochs 2     shorter

Claim: inside an epoch a worker makes 0.95 and more of the steps that one worker makes alone. Everything is what a
training runs (pipelines/training/fit.py): plan, Ray Data, Ray Train and its reports, statuses, checkpoints inside and
after epochs, evaluation, an MLflow server. Only the network's step is a sleep, and after it ranks wait for each other
in an all-reduce of one number, as they do for gradients. The first step is real, so that a checkpoint has momentum.

A step takes --step-seconds 0.25 by default: 256 images of ResNet-50 at 1,024 img/s, between 1,218 img/s that timm
states for an RTX 3090 and 860 that docs/cluster.md estimates for an A10G. (NVIDIA states 2,470 for an A100: 0.104.)
Two cores cannot decode for 64 GPUs, and that is not what is measured: a worker has --images 8 pictures of 40 pixels a
step, cropped to 32. All workers share this machine's cores with Ray's own processes; a cluster has a node's for eight.

CPU seconds a worker and step are counted from outside, by process, between the sixth step and the last: the controller
of Ray Train, the driver with its MLflow recorder, MLflow's server, GCS, the node's manager (raylet) and agents, workers
and their data tasks. The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

PICTURES = 256  # that differ; the rest of the files are links to them
SIDE, CROP = 40, 32  # pixels
WARM = 5  # steps of a run, and
SETTLED = 3  # of each epoch, that do not count
LOOK = 2.0  # seconds between two looks at the processes
LIMIT = 1500  # seconds that one number of workers may take
SPARED = 1.5  # GiB of memory that are left to others
# A process belongs to the first group whose word is in its name
GROUPS = {
    "gcs_server": "gcs",
    "raylet/raylet": "raylet",
    "dashboard": "agents",
    "runtime_env": "agents",
    "ray::traincontroller": "controller",
    "ray::raytrainworker": "workers",
}


# --- In the workers ---------------------------------------------------------------------------------------------------


def sleeping_worker(config: dict[str, Any]) -> None:
    """Ray Train's function: the product's own, with a learner that sleeps."""
    sys.path.insert(0, config["root"])
    from pipelines.training import worker_loop

    worker_loop.Learner = sleeper(config["seconds"], config["times"])
    worker_loop.train_worker(config)


def sleeper(seconds: float, times: str) -> Any:
    """A Learner whose steps after its first are a sleep. times: rank 0 notes there when a step began, had slept, and
    had met the others."""
    import torch

    from pipelines.training.learner import Learner

    class Sleeper(Learner):
        """The product's learner, but for the step."""

        stepped = False

        def step(self, pixels: Any, labels: Any, epoch: int, step: int, lr: float, look: Any = None) -> Any:
            """(3,) sums, as if half of the images were wrong."""
            if not self.stepped:
                self.stepped = True
                return super().step(pixels, labels, epoch, step, lr, look)
            began = time.monotonic()
            time.sleep(seconds)
            slept = time.monotonic()
            if self.task.world_size > 1:
                torch.distributed.all_reduce(torch.zeros(1))
            if look is not None:
                look(self.network, 1.0)
            if self.task.rank == 0:
                with open(times, "a") as file:
                    file.write(f"{epoch} {began} {slept} {time.monotonic()}\n")
            count = len(labels)
            return torch.tensor([float(count), count / 2, count], dtype=torch.float64)

    return Sleeper


# --- One number of workers, in a process of its own -------------------------------------------------------------------


def the_run(folder: Path, workers: int, images: int, epochs: int) -> Any:
    """A run of a small network on tiny pictures, streamed."""
    from pipelines.run import Run, standard
    from resnet.recipes.recipe_settings import Images

    recipe = standard("cifar10-resnet8").recipe
    changes: dict[str, Any] = {
        "images": Images(
            size=CROP, policy="random-resized-crop", mean="per-channel", area=(0.3, 1.0), eval_shorter_side=224
        ),
        "optim": recipe.optim.model_dump() | {"batch_size": images * workers},
        "schedule": {"kind": "cosine"},
        "epochs": float(epochs),
        "steps": None,
        "bn_batch": None,
        "bn_examples": None,
        "precision": "float32",
    }
    fields: dict[str, Any] = {
        "recipe": recipe.model_dump() | changes,
        "data": {"path": str(folder / "shards"), "window": 64},
        "scaling": {"workers": workers, "threads": 1, "retries": 0},
        "checkpoints": {"every_steps": 20},
        "storage": str(folder / "runs"),
        "promote": False,
    }
    return Run(**fields)


def one(folder: Path, workers: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train so many workers, and say how long steps took and what each process used."""
    os.environ["RESNET_HOME"] = str(folder / "home")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "900")
    from pipelines.cluster import private_ray

    private_ray.start_private(num_cpus=2 * workers, object_store_memory=2**30)
    from ray.train import UserCallback

    from pipelines.models.checkpoint_store import CheckpointStore
    from pipelines.training import fit, ray_trainer, worker_loop

    times = folder / "times"
    given = {"root": str(ROOT), "seconds": options.step_seconds, "times": str(times)}
    worker_loop.train_worker = lambda config: sleeping_worker(config | given)
    ray_trainer.LOOK = 1.0
    run = the_run(folder, workers, options.images, options.epochs)
    with looking(folder, options.mlflow) as looks:
        began = time.monotonic()
        fit.fit(run, show=False, callbacks=(UserCallback(),))
        seconds = time.monotonic() - began
    found = CheckpointStore.of(run).latest()
    assert found is not None
    waits = [row.data_wait_fraction for row in found[1].progress.rows]
    steps = [tuple(map(float, line.split())) for line in times.read_text().splitlines()]
    assert len(steps) == options.steps * options.epochs - 1, f"{len(steps)} steps are noted"
    return {
        "workers": workers,
        **paces(steps, options.step_seconds),
        "data_wait_fraction": round(max(waits), 4),
        "before_first_step_s": round(steps[0][1] - began, 1),
        "seconds": round(seconds, 1),
        **loads(looks, [step[3] for step in steps[WARM:]], workers),
    }


def paces(steps: list[tuple[float, ...]], asleep: float) -> dict[str, float]:
    """Steps a second inside epochs and over all, and where the time of a step goes beside its sleep."""
    pairs = [(a, b) for a, b in itertools.pairwise(steps[WARM:]) if a[0] == b[0]]
    first = {epoch: min(step[1] for step in steps if step[0] == epoch) for epoch in {step[0] for step in steps}}
    settled = [(a, b) for a, b in pairs if sum(first[a[0]] <= s[1] < a[1] for s in steps if s[0] == a[0]) >= SETTLED]
    span = statistics.mean(b[3] - a[3] for a, b in settled)
    between = [b[1] - a[3] for a, b in itertools.pairwise(steps[WARM:]) if a[0] != b[0]]
    return {
        "steps_per_second": round(1 / span, 4),
        "with_epoch_ends": round((len(steps) - 1 - WARM) / (steps[-1][3] - steps[WARM][3]), 4),
        "of_asleep": round(asleep / span, 4),
        "oversleep_ms": round(1e3 * statistics.mean(b[2] - b[1] - asleep for _, b in settled), 2),
        "meeting_ms": round(1e3 * statistics.mean(b[3] - b[2] for _, b in settled), 2),
        "loop_ms": round(1e3 * statistics.mean(b[1] - a[3] for a, b in settled), 2),
        "epoch_end_s": round(statistics.mean(between), 2) if between else 0.0,
    }


# --- Who uses the processors ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def looking(folder: Path, mlflow: int) -> Iterator[Path]:
    """Within: another process notes what this one, its children and MLflow's server use. Gives its file."""
    file = folder / "looks"
    words = [sys.executable, __file__, "--look", str(os.getpid()), str(mlflow), str(file)]
    with subprocess.Popen(words) as looker:
        try:
            yield file
        finally:
            looker.terminate()


def look(driver: int, mlflow: int, file: Path) -> None:
    """Note time, CPU seconds by group, busy cores and free memory, until SIGTERM."""
    import psutil

    known: dict[tuple[int, float], tuple[str, float]] = {}
    before: Any = psutil.cpu_times()
    while True:
        for group, root in (("driver", driver), ("mlflow", mlflow)):
            with contextlib.suppress(psutil.NoSuchProcess):
                top = psutil.Process(root)
                for process in [top, *top.children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        if process.pid == os.getpid():
                            continue
                        kind = group if process.pid == root or group == "mlflow" else group_of(process)
                        times = process.cpu_times()
                        known[process.pid, process.create_time()] = (kind, times.user + times.system)
        total: dict[str, float] = {}
        for kind, seconds in known.values():
            total[kind] = total.get(kind, 0.0) + seconds
        now: Any = psutil.cpu_times()
        busy = sum(now) - now.idle - now.iowait - (sum(before) - before.idle - before.iowait)
        with open(file, "a") as out:
            memory = psutil.virtual_memory().available / 2**30
            out.write(json.dumps([time.monotonic(), total, busy, memory]) + "\n")
        time.sleep(LOOK)


def group_of(process: Any) -> str:
    """The group of a process that the driver started."""
    words = " ".join(process.cmdline()[:3]).lower()
    return next((group for word, group in GROUPS.items() if word in words), "data tasks")


def loads(file: Path, ends: list[float], workers: int) -> dict[str, Any]:
    """CPU milliseconds of each group a worker and step, busy cores, and the memory that all took. ends: of steps."""
    looks = [json.loads(line) for line in file.read_text().splitlines()]
    inside = [each for each in looks if ends[0] <= each[0] <= ends[-1]]
    assert len(inside) > 1, "the steps must last for some seconds: give more --steps"
    first, last = inside[0], inside[-1]
    span, steps = last[0] - first[0], sum(first[0] < end <= last[0] for end in ends)
    used = {group: 1e3 * (last[1][group] - first[1].get(group, 0.0)) for group in sorted(last[1])}
    return {
        "cpu_ms_a_worker_and_step": {group: round(ms / workers / steps, 3) for group, ms in used.items()},
        "cpu_percent_of_a_core": {group: round(ms / span / 10, 2) for group, ms in used.items()},
        "busy_cores": round((last[2] - first[2]) / span, 2),
        "memory_gib": round(looks[0][3] - min(each[3] for each in looks), 2),
        "counted_s": round(span, 1),
    }


# --- All numbers of workers -------------------------------------------------------------------------------------------


def pictures(folder: Path) -> None:
    """Tiny JPEGs that differ."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(PICTURES):
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")


def shards(folder: Path, made: Path, train: int) -> None:
    """Shards of so many training images in two classes, and a few of val."""
    from pipelines.preparation.prepare import write_shards
    from pipelines.preparation.sources import Source

    for split, count in (("train", train), ("val", 2 * PICTURES)):
        for number in range(count):
            place = folder / "images" / split / f"class{number % 2}" / f"{number}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.hardlink_to(made / f"{number % PICTURES}.jpg")
    write_shards(Source(path=str(folder / "images")), str(folder / "shards"), row_group_size=128, workers=0)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Each number of workers, with a server of MLflow beside; those for which memory will not do are left out."""
    import psutil

    from benchmarks.reliability.outage import Server

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="scaling-") as name:
        base = Path(name)
        pictures(base / "made")
        server = Server(base)
        server.start()
        try:
            server.await_()
            os.environ["MLFLOW_TRACKING_URI"] = server.uri
            options.mlflow = server.process.pid
            for workers in options.workers:
                need = rows[-1]["memory_gib"] * workers / rows[-1]["workers"] if rows else 0.0
                there = psutil.virtual_memory().available / 2**30
                if need + SPARED > there:
                    _tell(f"{workers} workers are left out: about {need:.1f} GiB of memory, {there:.1f} are free")
                    break
                folder = base / str(workers)
                shards(folder, base / "made", workers * options.images * options.steps)
                rows.append(alone(folder, workers, options))
                rows[-1]["of_one"] = round(rows[-1]["steps_per_second"] / rows[0]["steps_per_second"], 4)
                _tell(json.dumps(rows[-1]))
        finally:
            server.kill()
    return rows


def alone(folder: Path, workers: int, options: argparse.Namespace) -> dict[str, Any]:
    """`one` in a process of its own: a Ray of another size."""
    given = {name: getattr(options, name) for name in ("steps", "epochs", "images", "step_seconds", "mlflow")}
    words = [sys.executable, __file__, "--one", str(folder), str(workers), json.dumps(given)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=LIMIT, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64], metavar="N", help="the first is the base")
    add("--steps", type=int, default=60, help="of an epoch")
    add("--epochs", type=int, default=2)
    add("--images", type=int, default=8, help="of a worker and step")
    add("--step-seconds", type=float, default=0.25, help="that a step sleeps")
    add("--out", type=Path, help="JSON file to write")
    add("--one", nargs=3, help=argparse.SUPPRESS)
    add("--look", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.look:
        driver, mlflow, file = options.look
        look(int(driver), int(mlflow), Path(file))
        return 0
    if options.one:
        folder, workers, given = options.one
        print(json.dumps(one(Path(folder), int(workers), argparse.Namespace(**json.loads(given)))))
        return 0
    from pipelines.provenance import git_commit
    from resnet.host.hardware import describe_hardware

    rows = measure(options)
    result = {
        "benchmark": "scaling",
        "least_of_one": min(row["of_one"] for row in rows),
        "rows": rows,
        "step_seconds": options.step_seconds,
        "command": "python benchmarks/training/scaling.py " + " ".join(sys.argv[1:]),
        "commit": git_commit(),
        "hardware": describe_hardware(),
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
