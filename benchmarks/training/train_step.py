#!/usr/bin/env python3
"""Our training loop inside Ray Train against a bare torch DDP loop doing the same work, steps per second.

    python benchmarks/training/train_step.py cifar --workers 1 2 --data CIFAR-SHARDS
    python benchmarks/training/train_step.py resnet18 --workers 1 --data SHARDS --streamed --out results/train_step.json

Claim: at least 0.98 of the bare loop's steps, and under 2 % of the time spent waiting for data. Both sides train the
same network on the same data with the same batch, precision and threads; augmentation and decoding are the same
functions. The bare side knows no Ray: torch DDP, a DataLoader where images are streamed, and no bookkeeping but a sum
of losses. Both live at the same time and take turns: one side's processes, Ray's own included, are stopped (SIGSTOP)
while the other side runs. A turn's figure is the mean of its whole steps; a case's ratio is the median over pairs of
turns. One start of a process differs from the next by some percent, for as long as it lives: --starts begins both sides
anew, and the pairs of all starts count alike. `of_bare_ddp_by_cpu` is the same by CPU seconds a step, of all processes
of a side, which others on the machine hardly move. The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

ROOT = Path(__file__).resolve().parents[2]
RECORD = struct.Struct("<cdd")  # b"s": end of a step, twice; b"w": a wait for data; b"e": begin of an epoch
SETTLE = 1.0  # seconds of a turn that do not count
NETWORKS = {"cifar": "cifar10-resnet20", "resnet18": "imagenet-resnet18"}
Turn = tuple[float, float, float]  # steps per second, fraction of the time waiting for data, CPU seconds a step
LEAST_PAIRS = 4
LIMIT = 400.0  # seconds that a side may take to its first steps


def main(argv: list[str]) -> int:
    """All cases, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("network", choices=list(NETWORKS), help="cifar: ResNet-20 at 32 pixels; resnet18: ResNet-18 at 224")
    add("--data", required=True, help="shards; resnet18 without --streamed decodes them once and keeps them in memory")
    add("--workers", type=int, nargs="+", default=[1, 2])
    add("--streamed", action="store_true", help="resnet18: decode every image anew, random resized crops")
    add("--batch", type=int, help="images of a step over all workers; default 128 for cifar, 32 for resnet18")
    add("--pairs", type=int, default=8, help="most pairs of turns a start")
    add("--starts", type=int, default=1, help="times that both sides are started, a case")
    add("--seconds", type=float, default=6.0, help="of a turn")
    add("--out", help="JSON file to add the cases to")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stopped processes are ended on the way out
    cases = [case(args, workers) for workers in args.workers]
    if args.out:
        _add(Path(args.out), cases)
    print(json.dumps(_all(cases)))
    return 0


def case(args: argparse.Namespace, workers: int) -> dict[str, Any]:
    """One network at one number of workers."""
    batch = args.batch or (128 if args.network == "cifar" else 32)
    starts = [start(args, workers, batch) for _ in range(args.starts)]
    return summary(args, workers, batch, starts)


def start(args: argparse.Namespace, workers: int, batch: int) -> list[tuple[Turn, Turn]]:
    """Both sides started, then turns in pairs."""
    with tempfile.TemporaryDirectory(prefix="train-step-") as folder:
        words = [args.network, args.data, str(workers), str(batch), str(int(args.streamed))]
        with Side("ours", words, folder, 1) as ours, Side("bare", words, folder, workers) as bare:
            pairs: list[tuple[Turn, Turn]] = []
            while len(pairs) < args.pairs and not settled(pairs):
                turns = {}
                for side in (ours, bare) if len(pairs) % 2 == 0 else (bare, ours):  # neither side always comes first
                    turns[side.name] = side.turn(args.seconds)
                pairs.append((turns["ours"], turns["bare"]))
                _tell(
                    f"{args.network} {workers} worker(s), pair {len(pairs)}: {turns['ours'][0]:.3f} steps/s against "
                    f"{turns['bare'][0]:.3f}, {100 * turns['ours'][1]:.2f} % waiting for data"
                )
    return pairs


def settled(pairs: Sequence[tuple[Turn, Turn]]) -> bool:
    """True if more pairs would hardly move the median: an even number, half of the ratios within a percent."""
    if len(pairs) < LEAST_PAIRS or len(pairs) % 2:
        return False
    low, _, high = statistics.quantiles([ours[0] / bare[0] for ours, bare in pairs], n=4)
    return high - low < 0.01


def summary(
    args: argparse.Namespace, workers: int, batch: int, starts: Sequence[Sequence[tuple[Turn, Turn]]]
) -> dict[str, Any]:
    """Medians and quartiles over the pairs of a case, and the median of each start."""
    from benchmarks.training.single import commit
    from resnet.host import hardware

    pairs = [pair for one in starts for pair in one]
    ratios = sorted(ours[0] / bare[0] for ours, bare in pairs)
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 2 else [ratios[0], ratios[0], ratios[-1]]
    return {
        "network": NETWORKS[args.network],
        "workers": workers,
        "batch": batch,
        "data": "streamed" if args.streamed else "resident",
        "of_bare_ddp": round(statistics.median(ratios), 4),
        "quartiles": [round(quartiles[0], 4), round(quartiles[2], 4)],
        "pairs": len(pairs),
        "starts": [round(statistics.median(ours[0] / bare[0] for ours, bare in one), 4) for one in starts],
        "steps_per_second": round(statistics.median(ours[0] for ours, _ in pairs), 3),
        "bare_steps_per_second": round(statistics.median(bare[0] for _, bare in pairs), 3),
        "of_bare_ddp_by_cpu": round(statistics.median(bare[2] / ours[2] for ours, bare in pairs), 4),
        "data_wait_fraction": round(statistics.median(ours[1] for ours, _ in pairs), 4),
        "bare_data_wait_fraction": round(statistics.median(bare[1] for _, bare in pairs), 4),
        "hardware": hardware.describe_hardware(),
        "commit": commit(),
    }


def _add(path: Path, cases: list[dict[str, Any]]) -> None:
    """Put cases into a file of results; a case that is measured anew takes the place of the old one."""
    keys = ("network", "workers", "data")
    fresh = {tuple(c[k] for k in keys) for c in cases}
    old = json.loads(path.read_text())["cases"] if path.exists() else []
    kept = [c for c in old if tuple(c[k] for k in keys) not in fresh] + cases
    path.write_text(json.dumps(_all(kept), indent=1) + "\n")


def _all(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """The cases, with the worst figures among them."""
    least, wait = min(c["of_bare_ddp"] for c in cases), max(c["data_wait_fraction"] for c in cases)
    return {"benchmark": "train_step", "of_bare_ddp": least, "data_wait_fraction": wait, "cases": cases}


class Side:
    """The processes of one side. They run only within `turn`."""

    def __init__(self, name: str, words: list[str], folder: str, processes: int) -> None:
        self.name, self.folder = name, Path(folder) / name
        self.folder.mkdir()
        self.log = (self.folder / "log").open("w")
        start = [sys.executable, __file__, f"--{name}", str(self.folder), *words]
        self.processes = [
            subprocess.Popen([*start, str(n)], stdout=self.log, stderr=self.log, cwd=ROOT) for n in range(processes)
        ]

    def __enter__(self) -> Side:
        try:
            self._until_steps()
            self._signal(signal.SIGSTOP)
        except BaseException:  # with's own __exit__ comes only after this
            self.__exit__()
            raise
        return self

    def _until_steps(self, wanted: int = 8) -> None:
        deadline = time.monotonic() + LIMIT
        while len(self._records(b"s")) < wanted:
            if any(p.poll() is not None for p in self.processes) or time.monotonic() > deadline:
                said = (self.folder / "log").read_text()[-3000:]
                raise SystemExit(f"{self.name} did not get to step {wanted}:\n{said}")
            time.sleep(0.2)

    def _tree(self) -> list[Any]:
        import psutil

        found: list[psutil.Process] = []
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                root = psutil.Process(process.pid)
                found += [root, *root.children(recursive=True)]
        return found

    def _signal(self, number: int) -> None:
        import psutil

        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _records(self, kind: bytes) -> list[tuple[float, float]]:
        """Of rank 0; all ranks go step by step."""
        path = self.folder / "0.times"
        data = path.read_bytes() if path.exists() else b""
        whole = data[: len(data) // RECORD.size * RECORD.size]
        return [(a, b) for k, a, b in RECORD.iter_unpack(whole) if k == kind]

    def turn(self, seconds: float) -> Turn:
        """Run for a while: steps per second, and the fraction of the time that rank 0 waited for data."""
        self._signal(signal.SIGCONT)
        while True:
            time.sleep(SETTLE)
            self._until_steps(len(self._records(b"s")) + 1)  # an evaluation may be under way
            begin, cpu = time.monotonic(), self._cpu()
            time.sleep(seconds)
            end, cpu = time.monotonic(), self._cpu() - cpu
            if not any(begin <= t <= end for t, _ in self._records(b"e")):
                break  # else an epoch has begun, and the evaluation before it is not what is compared here
        self._signal(signal.SIGSTOP)
        steps = [t for t, _ in self._records(b"s") if begin <= t <= end]
        waits = [b - a for a, b in self._records(b"w") if steps[0] <= a and b <= steps[-1]]
        span = steps[-1] - steps[0]
        pace = (len(steps) - 1) / span
        return pace, sum(waits) / span, cpu / (pace * (end - begin))

    def _cpu(self) -> float:
        """CPU seconds that all processes of the side have taken, Ray's own among them."""
        import psutil

        total = 0.0
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def __exit__(self, *_: object) -> None:
        import psutil

        tree = self._tree()
        self._signal(signal.SIGCONT)
        for process in self.processes:
            process.terminate()
        left = psutil.wait_procs(tree, timeout=30)[1]
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.log.close()


# --- Inside the processes ---------------------------------------------------------------------------------------------


def clock_steps(folder: str, rank: int) -> Any:
    """Write down when each step of the optimiser ends, the same on both sides; the function for other records."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    file = os.open(f"{folder}/{rank}.times", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(kind: bytes, begin: float, end: float) -> None:
        os.write(file, RECORD.pack(kind, begin, end))

    def stepped(*_: object) -> None:
        now = time.monotonic()
        note(b"s", now, now)

    register_optimizer_step_post_hook(stepped)
    return note


def the_run(network: str, data: str, workers: int, batch: int, streamed: bool, storage: str) -> Any:
    """The run that both sides train."""
    from pipelines.run import Run, standard
    from resnet.recipes.recipe_settings import Images

    run = standard(NETWORKS[network])
    changes: dict[str, Any] = {"optim": run.recipe.optim.model_dump() | {"batch_size": batch}}
    changes |= {"bn_examples": None, "bn_batch": None}  # one pass a step, as the bare loop has
    changes |= {"schedule": {"kind": "cosine"}, "steps": 1_000_000}
    if network == "resnet18":
        kept = {"policy": "pad-crop", "pad": 4}
        drawn = {"policy": "random-resized-crop", "area": (0.08, 1.0), "eval_shorter_side": 256}
        changes["images"] = Images(size=224, mean="per-channel", **(drawn if streamed else kept))  # pyright: ignore
    fields: dict[str, Any] = {"recipe": run.recipe.model_dump() | changes, "data": {"path": data, "memory_limit": 8192}}
    return Run(**(run.model_dump() | fields | {"scaling": {"workers": workers}, "storage": storage, "promote": False}))


def ours(folder: str, network: str, data: str, workers: int, batch: int, streamed: bool) -> None:
    """Our side as a user starts it, with a clock in each worker."""
    os.environ["RESNET_HOME"] = f"{folder}/home"
    import pipelines.training.worker_loop
    from pipelines.training import fit

    def clocked(config: dict[str, Any]) -> None:
        """Ray Train's function: pipelines/training/worker_loop.py's own, clocked."""
        import ray.train

        import pipelines.training.rank_data
        import pipelines.training.worker_loop

        sys.path.insert(0, str(ROOT))
        pass

        note = clock_steps(folder, ray.train.get_context().get_world_rank())
        plain = pipelines.training.rank_data.RankData.training
        timed: Any = lambda *args: clocked_waits(plain(*args), note)  # noqa: E731
        pipelines.training.rank_data.RankData.training = timed
        pipelines.training.worker_loop.train_worker(config)

    pipelines.training.worker_loop.train_worker = clocked
    fit.fit(the_run(network, data, workers, batch, streamed, f"{folder}/runs"))


def clocked_waits(batches: Iterator[Any], note: Any) -> Iterator[Any]:
    """An epoch's batches; its begin, and how long each was waited for, are written down."""
    note(b"e", time.monotonic(), time.monotonic())
    while True:
        begin = time.monotonic()
        batch = next(batches, None)
        note(b"w", begin, time.monotonic())
        if batch is None:
            return
        yield batch


def bare(folder: str, network: str, data: str, workers: int, batch: int, streamed: bool, rank: int) -> None:
    """The loop that a person would write without us: torch, DDP, a DataLoader."""
    import torch
    from torch.nn import functional as F

    from benchmarks.training.train_step_bare import batches, statistics_of
    from resnet import build
    from resnet.host.cpu_quota import usable_cores
    from resnet.training.step import Normalize, native_precision

    os.nice(15)  # as Ray has its workers; else whatever else runs on the machine would take from our side only
    run = the_run(network, data, workers, batch, streamed, f"{folder}/runs")
    torch.set_num_threads(max(1, usable_cores() // workers))
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    store = f"file://{folder}/store"
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, init_method=store, rank=rank, world_size=workers)
    source, classes = batches(run, rank, workers, streamed)
    model = build(run.recipe.network, classes).to(device).to(memory_format=torch.channels_last)
    model = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    normalize = Normalize(*statistics_of(run)).to(device)
    half = native_precision(device) == "bfloat16"
    note, total = clock_steps(folder, rank), torch.zeros((), device=device)
    for images, labels in clocked_waits(source, note):
        pixels, target = normalize(images.to(device)), labels.to(device)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = F.cross_entropy(model(pixels), target)
        loss.backward()
        optimizer.step()
        total += loss.detach()


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] in (["--ours"], ["--bare"]):
        where, net, shards, number, images, stream, place = sys.argv[2:]
        given = (where, net, shards, int(number), int(images), stream == "1")
        ours(*given) if sys.argv[1] == "--ours" else bare(*given, int(place))
    else:
        sys.exit(main(sys.argv[1:]))
