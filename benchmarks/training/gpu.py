#!/usr/bin/env python3
"""Our training step on a GPU, without Ray: images a second, against another way and against the chip.

    python benchmarks/training/gpu.py --out gpu.json          under 8 minutes on an H200
    python benchmarks/training/gpu.py --smoke --device cpu    the same code on tiny shapes, a minute on a CPU

matmul     the chip's ceiling: TFLOP/s of a large bfloat16 matrix product on random numbers
imagenet   ResNet-50 v1.5 as recipe @90 trains it (bfloat16, channels_last, one-kernel SGD, compiled blocks), and the
           way of torchvision's references with --amp (float16 and a gradient scaler, contiguous images in float32,
           loss and accuracy read after each step), written here with the library's parts. Synthetic images lie on the
           device for both. The ways take turns; a ratio is of neighbours in time. engine_default is what a user gets
           who sets nothing: the engine's order of calls, in passes of the recipe's batch norm, blocks compiled as
           `--scaling.compile auto` does on this device.
cifar      ResNet-20 and -56: engine_default is the engine's own learner on the set in memory, compiled and captured as
           its defaults say; the lanes are benchmarks/training/single.py, several trainings on one device
serving    the endpoint's model without HTTP: images a second and waiting times with 1, 8 and 64 clients, and the
           offline prediction (benchmarks/serving/gpu_serving.py)

Medians, with the least and the most. A part that fails or has no time left says so, and the others go on. The last line
of stdout is JSON.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.serving.gpu_serving import gpu_serving
from benchmarks.training.cifar import Cifar10, in_shard_order
from benchmarks.training.engine_rank import EngineRank
from benchmarks.training.resident import Resident, plan
from benchmarks.training.stepper import Options, Stepper
from pipelines.run import Scaling
from pipelines.stream.example_order import Order
from resnet import build
from resnet.host import hardware
from resnet.networks import cost
from resnet.recipes.named import recipe
from resnet.recipes.recipe import Recipe
from resnet.training.devices.compiled_blocks import compile_blocks, is_to_be_compiled
from resnet.training.lr_schedule import lr_at
from resnet.training.optimizer import optimizer
from resnet.training.step import (
    Normalize,
    accumulate,
    choose_algorithms,
    native_precision,
    scaler,
    to_device,
    train_step,
    update,
)

STEPS = 450_000  # of recipe @90


@dataclass(frozen=True)
class Sizes:
    """Amount of work that is measured."""

    network: str
    reference: str  # of torchvision.models
    image: int
    batch: int
    steps: int  # of one turn
    turns: int
    matrix: int
    cifar: tuple[str, ...]
    cifar_batch: int
    cifar_steps: int
    cifar_images: int
    lanes: tuple[int, ...]
    backend: str
    served: str
    classes: int
    serving_batch: int
    clients: tuple[int, ...]
    serving_seconds: float


FULL = Sizes(
    "imagenet-resnet50-B-v1.5@90",
    "resnet50",
    224,
    256,
    20,
    7,
    8192,
    ("resnet20", "resnet56"),
    128,
    300,
    50_000,
    (1, 4),
    "inductor",
    "imagenet-resnet50-B-v1.5",
    1000,
    64,
    (1, 8, 64),
    8.0,
)
SMOKE = Sizes(
    "imagenet-resnet18@90",
    "resnet18",
    32,
    4,
    2,
    2,
    256,
    ("resnet8",),
    8,
    3,
    200,
    (1, 2),
    "eager",
    "cifar10-resnet8",
    10,
    4,
    (1, 3),
    0.2,
)


class Way(Protocol):
    """A way of training that takes turns with others."""

    def steps(self, count: int) -> None:
        """Train for so many steps; may return before the device has done them."""
        ...


class Ours:
    """Recipe @90 by resnet/: uint8 images normalised on the device, as the worker loop does it."""

    def __init__(self, sizes: Sizes, device: torch.device, compiled: bool) -> None:
        self.recipe = recipe(sizes.network)
        self.network = build(self.recipe.network)
        to_device(self.network, device)
        if compiled:
            compile_blocks(self.network, sizes.backend)
        self.optimizer = optimizer(self.network, self.recipe.optim)
        self.normalize = Normalize(torch.full((3, 1, 1), 120.0), torch.full((3, 1, 1), 60.0)).to(device)
        shape = (sizes.batch, sizes.image, sizes.image, 3)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        self.labels = torch.randint(0, 1000, (sizes.batch,), device=device)
        self.sums, self.step = torch.zeros(3, dtype=torch.float64, device=device), 0

    def steps(self, count: int) -> None:
        """Forward, backward, update, sums; nothing waits for the device."""
        for _ in range(count):
            for group in self.optimizer.param_groups:
                group["lr"] = lr_at(self.step, STEPS, self.recipe.optim, self.recipe.schedule)
            smoothing = self.recipe.loss.label_smoothing
            pixels = self.normalize(self.images)
            self.sums += train_step(
                self.network, self.optimizer, pixels, self.labels, "bfloat16", label_smoothing=smoothing
            )
            self.step += 1


class EngineDefault(Ours):
    """The same as pipelines/training trains it where nothing is set: passes of bn_batch images, then the update."""

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        choice = is_to_be_compiled(Scaling().compile, device, STEPS, Scaling().deterministic)
        super().__init__(sizes, device, compiled=choice)
        self.part = min(self.recipe.bn_batch or sizes.batch, sizes.batch)
        self.precision = native_precision(device)

    def steps(self, count: int) -> None:
        """As Learner.step, alone."""
        choose_algorithms(Scaling().deterministic)
        share, smoothing = self.part / len(self.labels), self.recipe.loss.label_smoothing
        for _ in range(count):
            for group in self.optimizer.param_groups:
                group["lr"] = lr_at(self.step, STEPS, self.recipe.optim, self.recipe.schedule)
            pixels = self.normalize(self.images)
            for x, y in zip(pixels.split(self.part), self.labels.split(self.part), strict=True):
                self.sums += accumulate(self.network, x, y, share, self.precision, smoothing)
            update(self.optimizer)
            self.step += 1


class References:
    """The way of torchvision's references/classification with --amp: its network, its order of calls, its meters."""

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        from torchvision import models

        self.network: nn.Module = getattr(models, sizes.reference)(weights=None).to(device).train()
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
        self.scaler = scaler(device, "float16")
        self.images = torch.randn(sizes.batch, 3, sizes.image, sizes.image, device=device)
        self.labels = torch.randint(0, 1000, (sizes.batch,), device=device)
        self.seen = 0.0

    def steps(self, count: int) -> None:
        """As its training loop runs by default: what is logged is read from the device after each step."""
        for _ in range(count):
            with torch.autocast(self.images.device.type, torch.float16):
                logits = self.network(self.images)
                loss = self.criterion(logits, self.labels)
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.seen += loss.item() + sum(_accuracy(logits, self.labels))


def _accuracy(logits: Tensor, labels: Tensor) -> list[float]:
    """Top-1 and top-5 in percent, read from the device."""
    with torch.inference_mode():
        right = logits.topk(5, 1).indices == labels[:, None]
        return [float(right[:, :k].sum()) * 100 / len(labels) for k in (1, 5)]


class Timer:
    """Seconds that the device takes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, work: Callable[[], object]) -> float:
        """From an idle device to an idle device."""
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def wait(self) -> None:
        """Until the device is idle."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def matmul(sizes: Sizes, device: torch.device, timer: Timer) -> dict[str, Any]:
    """TFLOP/s of square bfloat16 products; several factors in turn, so that none stays in a cache."""
    n, repeats = sizes.matrix, 10
    factors = [torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(3)]
    out = torch.empty_like(factors[0])

    def products() -> None:
        for i in range(repeats):
            torch.mm(factors[i % 3], factors[(i + 1) % 3], out=out)

    products()
    return {"tflops": spread([2 * n**3 * repeats / timer(products) / 1e12 for _ in range(5)]), "n": n}


def imagenet(sizes: Sizes, device: torch.device, timer: Timer, left: Callable[[], float]) -> dict[str, Any]:
    """Images a second of all ways, which take turns."""
    ways: dict[str, Way] = {}
    result: dict[str, Any] = {"network": sizes.network, "image": sizes.image, "batch": sizes.batch}
    makers: dict[str, Callable[[], Way]] = {
        "engine_default": lambda: EngineDefault(sizes, device),
        "ours": lambda: Ours(sizes, device, compiled=True),
        "ours_not_compiled": lambda: Ours(sizes, device, compiled=False),
        "torchvision_references": lambda: References(sizes, device),
    }
    for name, make in makers.items():
        result[name] = attempt(lambda made=make, name=name: _warm(ways, name, made, timer))
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(sizes.turns):
        if turn and left() < 0:
            break
        order = list(ways)
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            seconds = timer(lambda way=ways[name]: way.steps(sizes.steps))
            speeds[name].append(sizes.steps * sizes.batch / seconds)
    for name, values in speeds.items():
        result[name] |= {"images_per_second": spread(values)}
    base = speeds.get("torchvision_references")
    for name in ("engine_default", "ours", "ours_not_compiled"):
        if base and name in speeds:
            pairs = zip(speeds[name], base, strict=True)
            result[name]["of_torchvision_references"] = spread([ours / other for ours, other in pairs])
    network = recipe(sizes.network).network
    forward = cost.count(network, size=sizes.image).multiply_adds
    result["flop_an_image"] = 3 * 2 * forward  # the backward pass is two more products of the same size
    return result


def _warm(ways: dict[str, Way], name: str, make: Callable[[], Way], timer: Timer) -> dict[str, Any]:
    """Make a way and train it for a few steps: compiling, choosing of algorithms, the first memory."""
    way = make()
    seconds = timer(lambda: way.steps(3))
    timer(lambda: way.steps(3))
    ways[name] = way
    return {"first_steps_seconds": round(seconds, 1)}


def cifar(sizes: Sizes, device: torch.device, timer: Timer, left: Callable[[], float]) -> dict[str, Any]:
    """Steps and images a second: by the engine's defaults, and of single.py's step, with blocks as they are and
    compiled, in one and several lanes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (sizes.cifar_images, 32, 32, 3), dtype=np.uint8)
    split = in_shard_order(images, rng.integers(0, 10, sizes.cifar_images), 0, 512)
    resident = Resident(Cifar10(split, split, ""), device)
    result: dict[str, Any] = {}
    for network in sizes.cifar:
        name = f"{network}_engine_default"
        if left() < 0:
            result[name] = {"skipped": "no time left"}
            continue
        result[name] = attempt(lambda n=network: _engine_default(sizes, device, timer, resident.data, n))
    for compiled in (False, True):
        for network in sizes.cifar:
            for lanes in sizes.lanes:
                name = f"{network}_{lanes}_lane{'s' if lanes > 1 else ''}{'_compiled' if compiled else ''}"
                if left() < 0:
                    result[name] = {"skipped": "no time left"}
                    continue
                result[name] = attempt(
                    lambda n=network, c=compiled, k=lanes: _lanes(sizes, device, timer, resident, n, c, k)
                )
    return result


def _recipe(sizes: Sizes, network: str) -> Recipe:
    """The paper's, in batches of this size."""
    base, batch = recipe(f"cifar10-{network}"), sizes.cifar_batch
    optim = base.optim.model_copy(update={"batch_size": batch})
    return base.model_copy(update={"optim": optim, "bn_batch": min(base.bn_batch or batch, batch)})


def _engine_default(sizes: Sizes, device: torch.device, timer: Timer, data: Cifar10, network: str) -> dict[str, Any]:
    engines: list[EngineRank] = []
    ready = timer(lambda: engines.append(EngineRank(_recipe(sizes, network), data, device)))
    (engine,) = engines
    engine.steps(3)
    rates = [sizes.cifar_steps / timer(lambda: engine.steps(sizes.cifar_steps)) for _ in range(3)]
    return {
        "ready_seconds": round(ready, 1),
        "compiled": engine.learner.compiled,
        "captured": engine.learner.replayed is not None,
        "steps_per_second": spread(rates),
        "images_per_second": round(statistics.median(rates) * sizes.cifar_batch, 1),
        "minutes_for_64k_steps": round(64_000 / statistics.median(rates) / 60, 2),
        "loss_is_finite": bool(torch.isfinite(engine.state.sums).all()),
    }


def _lanes(
    sizes: Sizes, device: torch.device, timer: Timer, resident: Resident, network: str, compiled: bool, lanes: int
) -> dict[str, Any]:
    wanted = _recipe(sizes, network)
    options = Options(device, "bfloat16", compiled, backend=sizes.backend)
    order = Order(resident.data.train.rows, sizes.cifar_batch, 16, 0)
    steppers = [Stepper(wanted, seed, resident, options) for seed in range(lanes)]
    made, lrs = plan(order, wanted.images, 0), [0.1] * order.steps_per_epoch

    def epoch() -> None:
        for stepper in steppers:
            stepper.load(made, lrs, 0, 0)
        timer.wait()

    epoch()
    ready = timer(lambda: [stepper.capture() for stepper in steppers] if options.is_cuda else None)

    def work() -> None:
        for _ in range(sizes.cifar_steps):
            for stepper in steppers:
                stepper.enqueue()

    rates = []
    for turn in range(4):
        epoch()
        seconds = timer(work)
        if turn:
            rates.append(lanes * sizes.cifar_steps / seconds)
        for stepper in steppers:
            stepper.synchronize()
    each = statistics.median(rates) / lanes
    return {
        "ready_seconds": round(ready, 1),
        "captured": all(stepper.captured is not None for stepper in steppers),
        "steps_per_second": spread(rates),
        "images_per_second": round(statistics.median(rates) * sizes.cifar_batch, 1),
        "minutes_for_64k_steps_a_lane": round(64_000 / each / 60, 2),
        "loss_is_finite": all(bool(torch.isfinite(stepper.sums).all()) for stepper in steppers),
    }


def attempt(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of work, or its error: a machine is lent for minutes, and the other parts are worth having."""
    try:
        return work()
    except Exception as error:
        torch.cuda.empty_cache()
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most, to four digits."""
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def shares(result: dict[str, Any]) -> None:
    """Put in how much of the matrix product's rate training reaches."""
    ceiling = result["matmul"].get("tflops", {}).get("median")
    for way in result["imagenet"].values():
        if ceiling and isinstance(way, dict) and "images_per_second" in way:
            rate = way["images_per_second"]["median"] * result["imagenet"]["flop_an_image"] / 1e12
            way["of_matmul"] = float(f"{rate / ceiling:.4g}")


def main(argv: list[str]) -> int:
    """Measure, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help="cuda or cpu; cuda where there is one")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes: shows that the command works, no figures")
    parser.add_argument("--minutes", type=float, default=7.0, help="no part starts after so many")
    parser.add_argument("--batch", type=int, help="images of a step of ResNet-50")
    parser.add_argument("--out", help="file for the JSON, written after each part")
    args = parser.parse_args(argv)
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    choose_algorithms(deterministic=False)
    sizes = SMOKE if args.smoke else FULL
    if args.batch:
        sizes = Sizes(**{**vars(sizes), "batch": args.batch})
    began, timer = time.monotonic(), Timer(device)

    def left() -> float:
        return 60 * args.minutes - (time.monotonic() - began)

    result: dict[str, Any] = {"benchmark": "gpu", "smoke": args.smoke, "hardware": hardware.describe_hardware()}
    result |= {"device": str(device), "torch": torch.__version__, "cuda": torch.version.cuda}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "matmul": lambda: matmul(sizes, device, timer),
        "imagenet": lambda: imagenet(sizes, device, timer, left),
        "cifar": lambda: cifar(sizes, device, timer, left),
        "serving": lambda: gpu_serving(
            sizes.served, sizes.classes, sizes.serving_batch, sizes.clients, sizes.serving_seconds, device
        ),
    }
    for name, part in parts.items():
        result[name] = attempt(part) if left() > 0 else {"skipped": "no time left"}
        result["seconds"] = round(time.monotonic() - began, 1)
        if "imagenet" in result:
            shares(result)
        print(f"{name}: {json.dumps(result[name])}", file=sys.stderr, flush=True)
        if args.out:
            Path(args.out).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 1 if '"error"' in json.dumps(result) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
