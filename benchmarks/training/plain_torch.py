#!/usr/bin/env python3
"""A recipe of the ImageNet family trained without Ray and our stream: class folders, PIL, DataLoader, torch's DDP.

    python benchmarks/training/plain_torch.py imagenet-resnet18@90 --data imagenette --out OUT --workers 2 \
      --override epochs=12 images.size=128 optim.batch_size=64

The network, the optimiser and the schedule are resnet/'s; decoding, crops, shuffling and the loop are written here as
torchvision's references have them. What the engine on Ray reaches with the same recipe must be equal to this within
the noise of seeds. DATA holds train/<class>/* and val/<class>/*. A row of the finished training, engine "torch", goes
to OUT, ready for results/; the last line of stdout is JSON.
"""

import argparse
import hashlib
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torchvision
from torch import distributed, nn
from torch.utils.data import DataLoader, DistributedSampler
from torchvision import datasets, transforms

from benchmarks.training.single import commit, overridden
from pipelines.progress.status import clock
from pipelines.stream.example_order import evaluation_slice
from resnet import build
from resnet.host.cpu_quota import usable_cores
from resnet.paper.result_rows import CurveRow, DataSet, ResultRow, write_results
from resnet.recipes.named import recipe
from resnet.recipes.recipe import Recipe
from resnet.training.conditions import conditions
from resnet.training.lr_schedule import lr_at
from resnet.training.optimizer import optimizer
from resnet.training.step import Normalize, eval_step, native_precision, to_device, train_step

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # torchvision's, in [0, 255]
LOADERS = 1  # processes that decode, a worker: two cores have no room for more


def require_trainable(wanted: Recipe) -> None:
    """ValueError for what this loop does not do."""
    if wanted.images.policy != "random-resized-crop" or wanted.images.resize or wanted.images.eval_size:
        raise ValueError(f"images must be random resized crops of one size, got {wanted.name}")
    if wanted.bn_batch is not None:
        raise ValueError(f"bn_batch must be None, a worker's part of the batch, got {wanted.bn_batch}")
    if wanted.ema or wanted.bn_examples or wanted.loss.mixup or wanted.loss.cutmix:
        raise ValueError(f"ema, bn_examples, loss.mixup and loss.cutmix must be None, got {wanted.name}")


def loader(folder: Path, wanted: Recipe, train: bool, rank: int, world_size: int, seed: int) -> DataLoader[Any]:
    """Batches of (N, 3, S, S) uint8 images and labels: a rank's part of a split."""
    images = wanted.images
    if train:
        assert images.area is not None  # the policy's own field
        steps = [transforms.RandomResizedCrop(images.size, images.area), transforms.RandomHorizontalFlip()]
    else:
        assert images.eval_shorter_side is not None
        steps = [transforms.Resize(images.scaled(images.eval_shorter_side)), transforms.CenterCrop(images.size)]
    found = datasets.ImageFolder(str(folder), transforms.Compose([*steps, transforms.PILToTensor()]))
    size = wanted.optim.batch_size // world_size
    if train:
        sampler = DistributedSampler(found, world_size, rank, seed=seed, drop_last=True)
        return DataLoader(found, size, sampler=sampler, num_workers=LOADERS, drop_last=True, persistent_workers=True)
    part = torch.utils.data.Subset(found, evaluation_slice(len(found), rank, world_size))
    return DataLoader(part, 128, num_workers=LOADERS, persistent_workers=True)


class Trainer:
    """One rank."""

    def __init__(self, wanted: Recipe, data: Path, seed: int, rank: int, world_size: int) -> None:
        self.wanted, self.rank, self.world_size, self.device = wanted, rank, world_size, torch.device("cpu")
        self.train = loader(data / "train", wanted, True, rank, world_size, seed)
        self.val = loader(data / "val", wanted, False, rank, world_size, seed)
        examples = len(self.train.dataset)  # pyright: ignore[reportArgumentType]
        self.total, self.spe = wanted.total_steps(examples), wanted.steps_per_epoch(examples)
        torch.manual_seed(seed)
        classes = len(self.train.dataset.classes)  # pyright: ignore[reportAttributeAccessIssue]
        network = build(wanted.network, classes, zero_init_last_bn=wanted.zero_init_last_bn)
        self.network = to_device(network, self.device)
        self.model = nn.parallel.DistributedDataParallel(self.network)
        self.optimizer = optimizer(self.network, wanted.optim)
        self.normalize = Normalize(torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1))
        self.precision = native_precision(self.device)

    def run(self) -> list[CurveRow]:
        """Train to the end; a row an epoch."""
        rows, began, step = [], time.monotonic(), 0
        while step < self.total:
            sums = torch.zeros(3, dtype=torch.float64)
            assert isinstance(self.train.sampler, DistributedSampler)
            self.train.sampler.set_epoch(step // self.spe)
            for images, labels in self.train:
                lr = lr_at(step, self.total, self.wanted.optim, self.wanted.schedule)
                for group in self.optimizer.param_groups:
                    group["lr"] = lr
                pixels = self.normalize(images.permute(0, 2, 3, 1).contiguous())
                smoothing = self.wanted.loss.label_smoothing
                sums += train_step(
                    self.model, self.optimizer, pixels, labels, self.precision, label_smoothing=smoothing
                )
                step += 1
                if step == self.total:
                    break
            rows.append(self._row(step, sums))
            if self.rank == 0:
                pace = (time.monotonic() - began) / step
                row = f"train {rows[-1].train_error:.2f} %, val {rows[-1].top1_error:.2f} %"
                left = clock(pace * (self.total - step))
                print(f"step {step}/{self.total}: {row}, {left} left", file=sys.stderr, flush=True)
        return rows

    def _row(self, step: int, sums: torch.Tensor) -> CurveRow:
        lr = self.optimizer.param_groups[0]["lr"]
        val = self.evaluate()
        distributed.all_reduce(sums)
        loss, wrong, count = sums.tolist()
        return CurveRow(step, lr, loss / count, 100 * wrong / count, val[0])

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        """Top-1 and top-5 error over the whole validation split, in percent."""
        for buffer in self.network.buffers():
            distributed.broadcast(buffer, src=0)
        self.network.eval()
        sums = torch.zeros(4, dtype=torch.float64)
        for images, labels in self.val:
            sums += eval_step(
                self.network, self.normalize(images.permute(0, 2, 3, 1).contiguous()), labels, self.precision
            )
        self.network.train()
        distributed.all_reduce(sums)
        return 100 * float(sums[1] / sums[3]), 100 * float(sums[2] / sums[3])


def work(rank: int, args: argparse.Namespace, wanted: Recipe, port: int) -> None:
    """A rank's process."""
    torch.set_num_threads(max(1, usable_cores() // args.workers))
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=args.workers)
    trainer, began = Trainer(wanted, Path(args.data), args.seed, rank, args.workers), time.monotonic()
    rows = trainer.run()
    seconds, (top1, top5) = time.monotonic() - began, trainer.evaluate()
    if rank == 0:
        made = row(args, wanted, rows, seconds, (top1, top5), trainer)
        path = write_results(args.out, [made])[0]
        told = {"top1_error": top1, "train_error": made.train_error, "seconds": round(seconds, 1)}
        print(json.dumps({"benchmark": "plain_torch", "run": made.name, **told, "row": str(path)}), flush=True)
    distributed.destroy_process_group()


def row(
    args: argparse.Namespace,
    wanted: Recipe,
    rows: list[CurveRow],
    seconds: float,
    errors: tuple[float, float],
    trainer: Trainer,
) -> ResultRow:
    """The row of the training."""
    folders = sorted(str(p.relative_to(args.data)) for p in Path(args.data).glob("*/*/*"))
    sha256 = hashlib.sha256("\n".join(folders).encode()).hexdigest()
    sizes = [len(part.dataset) for part in (trainer.train, trainer.val)]  # pyright: ignore[reportArgumentType]
    val = len(list(Path(args.data).glob("val/*/*")))
    ran_on = conditions(
        trainer.device,
        step=0,
        world_size=args.workers,
        precision=trainer.precision,
        bn_batch=wanted.optim.batch_size // args.workers,
        versions={"torchvision": torchvision.__version__},
    )
    return ResultRow(
        recipe=wanted,
        seed=args.seed,
        engine="torch",
        commit=args.commit or commit(),
        hardware=ran_on.hardware,
        data=DataSet(name=Path(args.data).name, sha256=sha256, train=sizes[0], val=val),
        steps=trainer.total,
        total=trainer.total,
        seconds=seconds,
        protocol="1-crop",
        top1_error=errors[0],
        top5_error=errors[1],
        train_error=rows[-1].train_error,
        curve=tuple(rows),
        conditions=(ran_on,),
        note=f"{args.workers} workers; sha256 is of the files' names",
    )


def main(argv: list[str]) -> int:
    """Train, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("recipe", metavar="RECIPE", help="imagenet-<network>@90 or another of random resized crops")
    add("--data", required=True, help="folder with train/<class>/* and val/<class>/*")
    add("--out", required=True, help="folder for the row")
    add("--seed", type=int, default=0)
    add("--workers", type=int, default=1, help="processes of DDP")
    add(
        "--override", nargs="+", default=[], metavar="FIELD=VALUE", help="of the recipe, e.g. images.size=128 epochs=12"
    )
    add("--commit", help="git commit for the row, where the folder is no checkout")
    args = parser.parse_args(argv)
    try:
        wanted = overridden(recipe(args.recipe), args.override)
        require_trainable(wanted)
        if not (Path(args.data) / "train").is_dir() or not (Path(args.data) / "val").is_dir():
            raise ValueError(f"--data must be a folder with train/ and val/, got {args.data}")
        if args.workers < 1 or wanted.optim.batch_size % args.workers:
            raise ValueError(f"--workers must divide the batch of {wanted.optim.batch_size}, got {args.workers}")
    except ValueError as error:
        print(f"plain_torch: {error}", file=sys.stderr)
        return 2
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(work, (args, wanted, port), args.workers)  # pyright: ignore[reportPrivateImportUsage]
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
