"""Detectors and segmenters: torchvision's reference loop on the same data, curves, and pictures of predictions.

    python -m benchmarks.training.dense_uses reference RUN --epochs 16 --out results/dense-cells.json
    python -m benchmarks.training.dense_uses figures RUN --out docs/pictures --name cells [--reference JSON]

RUN is the folder of a run of jobs/train_detector.py or jobs/train_segmenter.py. `reference` trains the same network
from the same start on the same shards by the loop of torchvision's references/detection/engine.py: one process, a
shuffling DataLoader, SGD and a schedule of torch's own; no Ray, and none of our order, augmentation or learner. Its
schedule is the run's own, of which it makes --epochs. `figures` draws both losses, the figure
of the validation images, and some of these with what the last checkpoint finds there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader

from pipelines.dense.dense_data import open_dense
from pipelines.dense.dense_run import dense_run
from pipelines.dense.initial_backbone import initial_dense
from pipelines.shards.row_groups import open_split
from resnet.dense.dense_checkpoint import DenseCheckpoint, load_dense
from resnet.dense.dense_images import Example, evaluation_example, training_example
from resnet.dense.dense_recipe import SegmentationRecipe
from resnet.dense.detectors import Detections, as_input, as_target
from resnet.dense.segmenters import class_masks, segmentation_loss

CPU = torch.device("cpu")
COLORS = ((77, 187, 213), (230, 75, 53), (60, 84, 136), (0, 160, 135))


def main() -> None:
    """Parse, and do one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["reference", "figures"])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="dense")
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--epochs", type=int, default=16)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    reference(asked.run, asked.epochs, asked.out) if asked.what == "reference" else figures(asked)


def checkpoints(run: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(path for path in run.glob("step-????????") if (path / "progress.json").is_file())


def rows_of(data: str, split: str) -> list[tuple[bytes, bytes, str]]:
    """Image, target and key of each example."""
    _, found = open_split(data, split)
    tables = [found.read(group, ("image", "target", "key")) for group in range(len(found.rows))]
    return [row for t in tables for row in zip(t["image"], t["target"], t["key"], strict=True)]


# --- torchvision's loop -----------------------------------------------------------------------------------------------


class Shuffled(torch.utils.data.Dataset):
    """Training examples, augmented by numpy's global generator."""

    def __init__(self, rows: list[tuple[bytes, bytes, str]], recipe: Any) -> None:
        self.rows, self.recipe = rows, recipe

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Example:
        image, target, _ = self.rows[place]
        return training_example(image, target, self.recipe, np.random.default_rng(np.random.randint(2**31)))


def reference(run: Path, epochs: int, out: Path) -> None:
    """Train by the reference's loop, and write the mean loss of each epoch beside ours."""
    last = load_dense(checkpoints(run)[-1])
    again = dense_run(json.dumps(last.run))
    start, ours = initial_dense(again, open_dense(again)), last.progress
    recipe, data = start.recipe, start.run["data"]["path"]
    network = start.network().train()
    rows = rows_of(data, "train")
    torch.manual_seed(1)
    np.random.seed(1)
    batch, length = recipe.optim.batch_size, round(recipe.epochs or 1)
    loader = DataLoader(Shuffled(rows, recipe), batch, shuffle=True, drop_last=True, collate_fn=list)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        trained, recipe.optim.peak_lr, recipe.optim.momentum, weight_decay=recipe.optim.weight_decay
    )
    total = length * len(loader)
    warm = round(recipe.schedule.warmup * total)
    steps = [
        torch.optim.lr_scheduler.LinearLR(optimizer, 1 / max(1, warm), total_iters=warm),
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warm),
    ]
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, steps, [warm])
    found: list[dict[str, float]] = []
    for epoch in range(epochs):
        began, losses = time.monotonic(), []
        for examples in loader:
            loss = loss_of(network, examples, recipe)
            if not math.isfinite(float(loss)):
                raise RuntimeError(f"the loss of epoch {epoch} is not finite")
            optimizer.zero_grad()
            loss.backward()
            if recipe.clip is not None:
                torch.nn.utils.clip_grad_norm_(trained, recipe.clip)
            optimizer.step()
            schedule.step()
            losses.append(float(loss))
        found.append({"epoch": epoch, "train_loss": float(np.mean(losses)), "seconds": time.monotonic() - began})
        mine = [
            {"epoch": r.epoch, "train_loss": r.train_loss, "quality": r.quality, "seconds": r.seconds}
            for r in ours.rows
        ]
        told = {"recipe": recipe.model_dump(mode="json"), "seed": start.run["seed"], "ours": mine, "reference": found}
        out.write_text(json.dumps(told, indent=1) + "\n")
        print(found[-1], flush=True)


def loss_of(network: Any, examples: list[Example], recipe: Any) -> torch.Tensor:
    """The loss of a batch, as the references add it up."""
    if isinstance(recipe, SegmentationRecipe):
        images, masks = (torch.from_numpy(np.stack(column)) for column in zip(*examples, strict=True))
        return segmentation_loss(network(images), masks.long(), recipe.auxiliary)
    losses = network([as_input(e.image, CPU) for e in examples], [as_target(e.target, CPU) for e in examples])
    return torch.stack(list(losses.values())).sum()


# --- Pictures ---------------------------------------------------------------------------------------------------------


def figures(asked: argparse.Namespace) -> None:
    """Draw NAME-curves.png and NAME.png into a folder."""
    last = load_dense(checkpoints(asked.run)[-1])
    told = json.loads(asked.reference.read_text()) if asked.reference else {"reference": []}
    curves(last, told["reference"], asked.out / f"{asked.name}-curves.png")
    network, size = last.network(), 300
    shown = []
    for image, target, _ in rows_of(last.run["data"]["path"], "val")[:4]:
        example = evaluation_example(image, target, last.recipe)
        shown.append(picture(network, example, last).resize((size, size * 3 // 4)))
    sheet = Image.new("RGB", (2 * size, 2 * (size * 3 // 4)))
    for number, one in enumerate(shown):
        sheet.paste(one, (number % 2 * size, number // 2 * (size * 3 // 4)))
    sheet.quantize(128).save(asked.out / f"{asked.name}.png", optimize=True)


@torch.inference_mode()
def picture(network: Any, example: Example, checkpoint: DenseCheckpoint) -> Image.Image:
    """An image with what the network finds: boxes with a score of 0.5 at least, or the edges of the second class."""
    if isinstance(checkpoint.recipe, SegmentationRecipe):
        height, width = example.target.shape
        found = class_masks(network, example.image, height, width, CPU)
        shown = np.array(Image.fromarray(example.image).resize((width, height)))
        for mask, channel in ((found == 0, 0), (example.target == 0, 2)):  # membranes: found red, labelled blue
            shown[mask, channel] = 255
        return Image.fromarray(shown)
    shown = Image.fromarray(example.image)
    pen = ImageDraw.Draw(shown)
    (found,) = network([as_input(example.image, CPU)])
    for box, label, score in zip(*Detections.of(found), strict=True):
        if score >= 0.5:
            pen.rectangle(box.tolist(), outline=COLORS[label % len(COLORS)], width=4)
    return shown


def curves(last: DenseCheckpoint, reference: list[dict[str, float]], out: Path) -> None:
    """Training losses, ours and the reference's, and the figure of the validation images, against epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, name = last.progress.rows, "mAP" if last.recipe.task == "detection" else "mIoU"
    drawing = Figure(figsize=(7, 2.6), layout="constrained", dpi=110)
    FigureCanvasAgg(drawing)
    left, right = drawing.subplots(1, 2)
    left.plot([row.epoch + 1 for row in rows], [row.train_loss for row in rows], label="ours, Ray Train")
    if reference:
        left.plot(
            [r["epoch"] + 1 for r in reference], [r["train_loss"] for r in reference], "--", label="torchvision's loop"
        )
    left.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    left.legend()
    judged = [(row.epoch + 1, row.quality) for row in rows if row.quality is not None]
    right.plot(*zip(*judged, strict=True), marker=".")
    right.set(xlabel="epoch", ylabel=f"{name} of validation images in %", ylim=(0, None))
    drawing.savefig(out, metadata={"Software": None})


if __name__ == "__main__":
    main()
