#!/usr/bin/env python3
"""The yardstick: recipes of CIFAR-10 trained in one process by resnet/ alone, without Ray, several side by side.

    python benchmarks/training/single.py cifar10-resnet20 cifar10-resnet56 --seeds 0 1 --data CIFAR --out OUT
    python benchmarks/training/single.py cifar10-resnet8 --data CIFAR --out OUT --override steps=300 --threads 1

Every pair of recipe and seed is a run. Each finished run leaves a row in OUT, ready for results/trainings; its
checkpoint is below OUT/runs, and the same command again goes on from there. CIFAR is cifar-10-batches-bin, or sheets.
On CUDA: bfloat16, channels_last, whole steps in CUDA graphs, a stream for each of --lanes runs. The last line of stdout
is JSON. Exit status 1 if a run failed; runs that --minutes left unfinished are no failure.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.training import cifar
from benchmarks.training.lane import Lane, require_trainable
from benchmarks.training.resident import Resident
from benchmarks.training.stepper import Options
from resnet.host import hardware
from resnet.paper.result_rows import DataSet, ResultRow, write_results
from resnet.recipes.named import recipe
from resnet.recipes.recipe import Recipe
from resnet.training.finite_loss import NotFinite

ROOT = Path(__file__).resolve().parents[2]
SAY_EVERY = 10.0  # seconds
IDLE = 2e-4  # seconds that the host sleeps when all lanes have given the device enough to do


def main(argv: list[str]) -> int:
    """Train all runs, and print what came out."""
    args = arguments().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.backends.cudnn.benchmark = True
    try:
        recipes = [overridden(recipe(name), args.override) for name in args.recipes]
        for wanted in recipes:
            require_trainable(wanted)
        resident = Resident(cifar.read(args.data), device)
    except ValueError as error:
        print(f"single: {error}", file=sys.stderr)
        return 2
    options = Options(device, args.precision, args.compile, args.evaluate_every, args.save_every)
    todo = [(wanted, seed) for wanted in recipes for seed in args.seeds]
    pool = Pool(resident, options, Path(args.out), args.commit or commit(), args.lanes, 60 * args.minutes)
    signal.signal(signal.SIGTERM, lambda *_: pool.end())
    began = time.monotonic()
    pool.run(todo)
    print(json.dumps({"benchmark": "single", "seconds": round(time.monotonic() - began, 1), **pool.report()}))
    return 1 if pool.failed else 0


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("recipes", nargs="+", metavar="RECIPE", help="cifar10-<network>[@<variant>]")
    add("--data", required=True, help="cifar-10-batches-bin, or a folder with labels-train.npy and train-*.webp")
    add("--out", required=True, help="folder for rows and checkpoints")
    add("--seeds", type=int, nargs="+", default=[0], help="one run of each recipe for each")
    add("--override", nargs="+", default=[], metavar="FIELD=VALUE", help="of the recipe, e.g. optim.lr=0.05 epochs=30")
    add("--lanes", type=int, default=4, help="runs side by side; on a CPU one after the other is as fast")
    add("--device", help="cuda or cpu; cuda where there is one")
    add("--precision", default="auto", choices=["auto", "float32", "bfloat16"], help="of matrix products")
    add(
        "--compile",
        action="store_true",
        help="compile the residual blocks: takes a minute at the start",
    )
    add("--evaluate-every", type=int, default=10, metavar="EPOCHS", help="the end of a run is always evaluated")
    add("--save-every", type=float, default=30.0, metavar="SECONDS", help="between two checkpoints of a run")
    add("--minutes", type=float, default=float("inf"), help="stop then, with checkpoints to go on from")
    add("--threads", type=int, help="torch threads on a CPU")
    add("--commit", help="git commit for the rows, where the folder is no checkout")
    return parser


def overridden(paper: Recipe, overrides: list[str]) -> Recipe:
    """A recipe with some fields changed, FIELD=VALUE with dotted names and JSON values; checked anew."""
    changed = paper.model_dump(mode="json")
    for override in overrides:
        name, equals, text = override.partition("=")
        *path, last = name.split(".")
        place: Any = changed
        for part in path:
            place = place.get(part) if isinstance(place, dict) else None
        if not equals or not isinstance(place, dict) or last not in place:
            raise ValueError(f"override must be FIELD=VALUE with a field of the recipe, got {override!r}")
        place[last] = _value(text)
        if name == "steps":
            changed["epochs"] = None
    return Recipe(**changed)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def commit() -> str:
    """The checkout's commit, `-dirty` where files were changed; `unknown` outside one."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return found.stdout.strip() or "unknown"


@dataclass
class Pool:
    """Runs side by side in one thread: each in turn gives the device work until it has enough."""

    resident: Resident
    options: Options
    out: Path
    commit: str
    lanes: int
    seconds: float
    finished: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    unfinished: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    images: int = 0
    _ending: bool = False
    _said_steps: dict[str, int] = field(default_factory=dict)

    def end(self) -> None:
        """Stop at the next opportunity; a signal's handler."""
        self._ending = True

    def run(self, todo: list[tuple[Recipe, int]]) -> None:
        """All runs, at most `lanes` at a time."""
        queue, active = list(todo), []
        self.began = self.said = time.monotonic()
        while (queue or active) and not self._over():
            while queue and len(active) < self.lanes:
                if (started := self._start(*queue.pop(0))) is not None:
                    active.append(started)
            words = [self._advance(*running) for running in active]
            active = [running for running, word in zip(active, words, strict=True) if word is not None]
            if active and not any(words):
                time.sleep(IDLE)
            if time.monotonic() - self.said > SAY_EVERY:
                self._say([lane for lane, _, _ in active])
        self._stop(queue, active)

    def _over(self) -> bool:
        return self._ending or time.monotonic() - self.began > self.seconds

    def _start(self, wanted: Recipe, seed: int) -> tuple[Lane, Iterator[bool], int] | None:
        """A lane, its training and the step that it begins at; None: another run's checkpoint is in its place."""
        name = f"{wanted.name}.s{seed}"
        try:
            lane = Lane(wanted, seed, self.resident, self.options, self.out / "runs" / name)
        except ValueError as error:
            self._fail(name, error)
            return None
        _tell(f"{name}: from step {lane.step:,} of {lane.total:,}, {lane.stepper.precision} on {self.options.device}")
        return lane, lane.train(), lane.step

    def _advance(self, lane: Lane, training: Iterator[bool], first: int) -> bool | None:
        """One turn of a lane: True if it gave the device work, None at its end."""
        try:
            word = next(training, None)
        except NotFinite as error:
            self._fail(lane.name, error)
            self._count(lane, first)
            return None
        if word is None:
            self._close(lane, first)
        return word

    def _fail(self, name: str, error: Exception) -> None:
        self.failed.append({"run": name, "error": str(error)})
        _tell(f"{name}: {error}")

    def _count(self, lane: Lane, first: int) -> None:
        self.steps += lane.step - first
        self.images += (lane.step - first) * lane.recipe.optim.batch_size

    def _close(self, lane: Lane, first: int) -> None:
        """Write the row of a finished run."""
        self._count(lane, first)
        result = row(lane, self.commit, self.lanes)
        write_results(self.out, [result])
        kept = ("top1_error", "train_error", "steps", "seconds")
        self.finished.append({"run": lane.name, **result.model_dump(include=set(kept))})
        _tell(f"{lane.name}: finished, test error {result.top1_error:.2f} %, training error {result.train_error:.2f} %")

    def _stop(self, queue: list[tuple[Recipe, int]], active: list[tuple[Lane, Iterator[bool], int]]) -> None:
        for lane, _, first in active:
            lane.stop()
            self._count(lane, first)
            self.unfinished.append({"run": lane.name, "step": lane.step, "steps": lane.total})
            _tell(f"{lane.name}: stopped at step {lane.step:,} of {lane.total:,}")
        self.unfinished += [{"run": f"{wanted.name}.s{seed}", "step": 0} for wanted, seed in queue]

    def _say(self, lanes: list[Lane]) -> None:
        """Print the progress of all lanes, and when the last of them ends at its present pace."""
        now = time.monotonic()
        before, self._said_steps = self._said_steps, {lane.name: lane.step for lane in lanes}
        for lane in lanes:
            pace = (lane.step - before.get(lane.name, lane.step)) / (now - self.said)
            left = f"{(lane.total - lane.step) / pace / 60:.1f} min left" if pace else "starting"
            last = lane.curve[-1] if lane.curve else None
            errors = f", training error {last.train_error:.1f} %, loss {last.train_loss:.3f}" if last else ""
            _tell(f"{lane.name}: {lane.step:,}/{lane.total:,} steps, {pace:.0f} steps/s, {left}{errors}")
        self.said = now

    def report(self) -> dict[str, Any]:
        """For the last line of stdout."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        return {
            "hardware": hardware.describe_hardware(),
            "lanes": self.lanes,
            "steps_per_second": round(self.steps / seconds, 1),
            "images_per_second": round(self.images / seconds, 1),
            "finished": self.finished,
            "unfinished": self.unfinished,
            "failed": self.failed,
        }


def row(lane: Lane, commit: str, lanes: int) -> ResultRow:
    """The row of a finished lane, for results/."""
    last, data = lane.rows[-1], lane.resident.data
    assert last.top1_error is not None  # the end of a run is always evaluated
    assert last.top5_error is not None
    whole = [row for row in lane.curve if row.step % lane.spe == 0] or lane.curve
    return ResultRow(
        recipe=lane.recipe,
        seed=lane.seed,
        engine="single",
        commit=commit,
        hardware=lane.conditions[-1].hardware,
        data=DataSet(name="cifar10", sha256=data.sha256, train=len(data.train.labels), val=len(data.val.labels)),
        steps=lane.step,
        total=lane.total,
        seconds=round(lane.seconds, 1),
        protocol="single",
        top1_error=last.top1_error,
        top5_error=last.top5_error,
        train_error=whole[-1].train_error,
        curve=tuple(lane.curve),
        cpu_seconds=round(lane.cpu_seconds, 1) if lanes == 1 else None,
        conditions=lane.conditions,
        final=lane.final_test(),
        norms=lane.norms,
        note=f"seconds are of up to {lanes} runs side by side",
    )


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
