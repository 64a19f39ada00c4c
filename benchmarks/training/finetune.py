#!/usr/bin/env python3
"""Fine-tuning on two small sets against from scratch, a linear probe and torchvision's loop: the same steps and images.

    benchmarks/training/finetune.py --imagenette DIR --bccd DIR --faces DIR --work WORK --minutes 60

Weights: a 10-class ResNet-18 trained here on Imagenette at 64 pixels. Sets: crops of the boxes of blood cells (red,
white, platelets; split by image, as its authors split) and faces of 30 persons (half of each person's ten pictures to
train). Three seeds each. It goes on where it was stopped: trainings by their run folders, all else by WORK/rows.json.
What is done when the minutes are over is printed, and written to --out.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pipelines import provenance  # noqa: E402
from pipelines.data_settings import Data  # noqa: E402
from pipelines.models.initial_weights import begin_from  # noqa: E402
from pipelines.run import Run, Scaling, standard  # noqa: E402
from resnet.host.cpu_quota import usable_cores  # noqa: E402
from resnet.recipes.loss_settings import Loss  # noqa: E402
from resnet.recipes.named import recipe  # noqa: E402
from resnet.recipes.recipe_settings import FineTuning, Optim, Schedule  # noqa: E402

NETWORK = "imagenet-resnet18-B"
SIZE = 64
BATCH = 32
STEPS = 150
SEEDS = (0, 1, 2)
LR = 0.01  # of all but the classifier, whose is ten times that; scratch takes the best of SCRATCH_LRS by its own test
SCRATCH_LRS = (0.01, 0.03, 0.1)
PERSONS = 30
AREA = (0.35, 1.0)
SETS = ("cells", "faces")
WAYS = ("probe", "fine-tuned", "torchvision", "scratch")


# --- Data -------------------------------------------------------------------------------------------------------------


def cell_crops(bccd: Path, out: Path) -> None:
    """Crops of the boxes as class folders, in the splits of the data set's authors. Names begin with the image's."""
    from PIL import Image

    for split in ("train", "val"):
        listed = bccd / "ImageSets" / "Main" / f"{split}.txt"
        for name in listed.read_text().split():
            with Image.open(bccd / "JPEGImages" / f"{name}.jpg") as image:
                pixels = image.convert("RGB")
            tree = ElementTree.parse(bccd / "Annotations" / f"{name}.xml")
            for number, found in enumerate(tree.iter("object")):
                box = [int(found.findtext(f"bndbox/{edge}") or 0) for edge in ("xmin", "ymin", "xmax", "ymax")]
                if box[2] - box[0] < 8 or box[3] - box[1] < 8:
                    continue
                folder = out / split / (found.findtext("name") or "none")
                folder.mkdir(parents=True, exist_ok=True)
                pixels.crop((box[0], box[1], box[2], box[3])).save(folder / f"{name}_{number:02d}.png")


def some_faces(faces: Path, out: Path) -> None:
    """Class folders of the first persons by number."""
    names = sorted((p.name for p in faces.iterdir() if p.is_dir()), key=lambda name: int(name[1:]))[:PERSONS]
    for name in names:
        shutil.copytree(faces / name, out / name)


def shards(name: str, places: argparse.Namespace) -> str:
    """Shards of a set, written on first use."""
    from pipelines.preparation.prepare import write_shards
    from pipelines.preparation.sources import Source
    from pipelines.preparation.splits.drawn_splits import Drawing
    from pipelines.shards.manifest import Encoding

    out, source = Path(places.work) / "shards" / name, Path(places.work) / "sources" / name
    if (out / "manifest.json").exists():
        return str(out)
    if name == "imagenette":
        smaller = Encoding(shorter_side=96, quality=90)
        write_shards(Source(path=places.imagenette), str(out), encoding=smaller, workers=0)
        return str(out)
    if source.exists():
        shutil.rmtree(source)
    (cell_crops if name == "cells" else some_faces)(Path(places.bccd if name == "cells" else places.faces), source)
    drawing = Drawing() if name == "cells" else Drawing(val_share=0.5)
    write_shards(Source(path=str(source)), str(out), drawing=drawing, row_group_size=32, workers=0)
    return str(out)


# --- Ours -------------------------------------------------------------------------------------------------------------


def pretraining(places: argparse.Namespace) -> Run:
    """ResNet-18 on Imagenette at 64 pixels, 24 epochs."""
    run = standard(f"{NETWORK}@90")
    tuned = run.recipe.model_copy(
        update={
            "images": run.recipe.images.model_copy(update={"size": SIZE, "area": (0.25, 1.0)}),
            "optim": Optim(lr=0.05, batch_size=64, weight_decay=5e-4, decay_norm_and_bias=False, nesterov=True),
            "schedule": Schedule(kind="cosine", warmup=0.1),
            "bn_batch": None,
            "epochs": 24.0,
        }
    )
    return placed(Run(recipe=tuned, data=Data(path=shards("imagenette", places))), places, "pretrained")


def tuning(places: argparse.Namespace, name: str, seed: int, init: str | None, lr: float) -> Run:
    """A training on a small set: from weights, or from scratch by the same recipe with one lr."""
    base = recipe(f"{NETWORK}@finetune")
    images = base.images.model_copy(update={"size": SIZE, "area": AREA})
    changed: dict[str, Any] = {
        "images": images,
        "loss": Loss(label_smoothing=0.1),
        "optim": Optim(lr=lr, batch_size=BATCH, decay_norm_and_bias=False),
        "schedule": Schedule(kind="cosine", warmup=0.05),
        "bn_batch": None,
        "epochs": None,
        "steps": STEPS,
    }
    if init is None:
        changed["finetune"] = FineTuning()
    data = Data(path=shards(name, places))
    run = begin_from(Run(recipe=base.model_copy(update=changed), data=data, seed=seed, init=init))
    assert run.recipe.images.size == SIZE  # the weights say the same
    way = f"scratch-{lr:g}" if init is None else "fine-tuned"
    return placed(run, places, f"{name}-{way}-s{seed}")


def placed(run: Run, places: argparse.Namespace, name: str) -> Run:
    """The run in its folder, by one worker, evaluated at its end only."""
    scaling = Scaling(workers=1, threads=places.threads, gpu=False)
    storage = str(Path(places.work) / "runs")
    often = {"storage": storage, "run_name": name, "promote": False, "scaling": scaling, "evaluate_every": 1000}
    return Run(**(run.model_copy(update=often).model_dump()))


def trained(run: Run) -> dict[str, Any]:
    """The row of a training by our engine."""
    from pipelines.training.fit import fit

    outcome = fit(run, show=False)
    answers = answers_of(Path(run.folder))
    return {"checkpoint": outcome.checkpoint, "seconds": outcome.train_seconds} | figures_of(*answers)


def answers_of(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels and answers of the finished network in float32, of a run's folder."""
    from pyarrow import parquet

    rows = parquet.read_table(folder / "predictions.parquet", columns=["label", "top"]).to_pydict()
    return np.asarray(rows["label"]), np.asarray([top[0] for top in rows["top"]])


def figures_of(labels: np.ndarray, answers: np.ndarray) -> dict[str, Any]:
    """Errors in percent. class_error: the mean over classes, in which a rare one counts as much as any other."""
    from sklearn.metrics import balanced_accuracy_score

    wrong = answers != labels
    return {
        "top1_error": 100 * float(wrong.mean()),
        "class_error": 100 * (1 - float(balanced_accuracy_score(labels, answers))),
        "images": len(labels),
        "wrong": int(wrong.sum()),
    }


def probed(places: argparse.Namespace, name: str, init: str) -> dict[str, Any]:
    """The row of a linear probe: no seed, no steps."""
    from pipelines.evaluation.linear_probe import Probe, probe
    from pipelines.evaluation.pooled_features import pooled_features
    from pipelines.models.by_name import open_checkpoint
    from pipelines.shards.row_groups import open_split

    path = shards(name, places)
    asked = Probe(data=Data(path=path), out=str(Path(places.work) / "probes" / name))
    outcome = probe(init, asked, show=False)
    model = open_checkpoint(outcome.checkpoint)[0]
    manifest, val = open_split(path, "val")
    found = pooled_features(model, val, manifest.fingerprint(), show=False)
    logits = found.features @ model.weights["fc.weight"].numpy().T + model.weights["fc.bias"].numpy()
    return {"seconds": outcome.seconds, "strength": outcome.strength} | figures_of(found.labels, logits.argmax(1))


# --- The peer: torchvision's transforms and network, torch's optimiser, as its fine-tuning tutorial has them ----------


def torchvision_loop(places: argparse.Namespace, name: str, seed: int, init: str) -> dict[str, Any]:
    """The row of a plain loop: RandomResizedCrop, flip, SGD by the same lrs, cosine with warm-up, the same number of
    steps, the same weights, mean and std."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision import models, transforms

    from pipelines.models.by_name import open_checkpoint

    torch.set_num_threads(places.threads)
    torch.manual_seed(seed)
    model, _ = open_checkpoint(init)
    path = shards(name, places)
    train, val = images_of(path, "train"), images_of(path, "val")
    classes = len({label for _, label in train})
    mean, std = ((values.double().mean((1, 2)) / 255).tolist() for values in (model.mean, model.std))
    ending = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    seen = transforms.Compose(
        [transforms.RandomResizedCrop(SIZE, scale=AREA), transforms.RandomHorizontalFlip(), *ending]
    )
    tested = transforms.Compose([transforms.Resize(model.images.eval_side), transforms.CenterCrop(SIZE), *ending])
    net = models.resnet18(num_classes=model.outputs)
    net.load_state_dict(model.weights)
    net.fc = nn.Linear(net.fc.in_features, classes)
    head = list(net.fc.parameters())
    body = [p for n, p in net.named_parameters() if not n.startswith("fc.")]
    groups: list[dict[str, Any]] = []
    for parameters, lr in ((body, LR), (head, 10 * LR)):
        groups.append({"params": [p for p in parameters if p.ndim > 1], "lr": lr, "weight_decay": 1e-4})
        groups.append({"params": [p for p in parameters if p.ndim <= 1], "lr": lr, "weight_decay": 0.0})
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    warmup = round(0.05 * STEPS)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, total_iters=warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS - warmup),
        ],
        milestones=[warmup],
    )
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    loader = DataLoader(Transformed(train, seen), BATCH, shuffle=True, drop_last=True)
    began, done = time.monotonic(), 0
    net.train()
    while done < STEPS:
        for images, labels in loader:
            optimizer.zero_grad()
            loss(net(images), labels).backward()
            optimizer.step()
            schedule.step()
            done += 1
            if done == STEPS:
                break
    seconds = time.monotonic() - began
    net.eval()
    with torch.inference_mode():
        parts = [(net(x).argmax(1), y) for x, y in DataLoader(Transformed(val, tested), 128)]
    answers, labels = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return {"seconds": seconds} | figures_of(labels, answers)


class Transformed(Dataset[Any]):
    """Decoded images under a transform: a data set as torch's loader wants one."""

    def __init__(self, images: list[tuple[Any, int]], transform: Callable[[Any], Any]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        image, label = self.images[place]
        return self.transform(image), label


def images_of(path: str, split: str) -> list[tuple[Any, int]]:
    """Pillow images and labels of a split."""
    from PIL import Image

    from pipelines.shards.row_groups import open_split

    found = open_split(path, split)[1]
    rows = [found.read(group) for group in range(len(found.rows))]
    pairs = [pair for part in rows for pair in zip(part["image"], part["label"], strict=True)]
    return [(Image.open(io.BytesIO(data)).convert("RGB"), int(label)) for data, label in pairs]


# --- The table --------------------------------------------------------------------------------------------------------


def work(places: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """The trainings in their order, by a name: set/way/seed. The sets come one seed after another."""
    init = str(trained(pretraining(places))["checkpoint"])
    for name in SETS:
        yield f"{name}/probe/0", lambda name=name: probed(places, name, init)
    for seed in SEEDS:
        for name in SETS:
            yield (f"{name}/fine-tuned/{seed}", lambda n=name, s=seed: trained(tuning(places, n, s, init, LR)))
            yield f"{name}/torchvision/{seed}", lambda n=name, s=seed: torchvision_loop(places, n, s, init)
            lrs = SCRATCH_LRS if seed == 0 else (best_scratch_lr(places, name),)
            for lr in lrs:
                told = f"{name}/scratch/{seed}" if seed else f"{name}/scratch-{lr:g}/{seed}"
                yield told, lambda n=name, s=seed, lr=lr: trained(tuning(places, n, s, None, lr)) | {"lr": lr}


def best_scratch_lr(places: argparse.Namespace, name: str) -> float:
    """The lr that gave seed 0 from scratch its lowest error on the test images: in its favour."""
    rows = read_rows(places)
    return min(SCRATCH_LRS, key=lambda lr: rows[f"{name}/scratch-{lr:g}/0"]["top1_error"])


def read_rows(places: argparse.Namespace) -> dict[str, Any]:
    """The finished trainings, by name."""
    path = Path(places.work) / "rows.json"
    return json.loads(path.read_text()) if path.exists() else {}


def summary(places: argparse.Namespace) -> dict[str, Any]:
    """Mean and standard deviation over seeds, and the difference to torchvision's loop with its 95 % t-interval."""
    from scipy import stats

    rows, table = read_rows(places), {}
    for name in SETS:
        for metric in ("top1_error", "class_error"):
            by_way = {way: values_of(rows, name, way, metric, places) for way in WAYS}
            for way, values in by_way.items():
                if values:
                    spread = statistics.stdev(values) if len(values) > 1 else None
                    table[f"{name}/{way}/{metric}"] = {"mean": statistics.fmean(values), "std": spread, "seeds": values}
            pairs = list(zip(by_way["fine-tuned"], by_way["torchvision"], strict=False))
            if len(pairs) > 1:
                gaps = [a - b for a, b in pairs]
                half = float(stats.t.ppf(0.975, len(gaps) - 1)) * statistics.stdev(gaps) / len(gaps) ** 0.5
                table[f"{name}/fine-tuned - torchvision/{metric}"] = {"mean": statistics.fmean(gaps), "half": half}
    return table


def values_of(rows: dict[str, Any], name: str, way: str, metric: str, places: argparse.Namespace) -> list[float]:
    """A figure by seed."""
    found = []
    for seed in SEEDS:
        key = f"{name}/{way}/{seed}"
        if way == "scratch" and seed == 0:
            if not all(f"{name}/scratch-{lr:g}/0" in rows for lr in SCRATCH_LRS):
                continue
            key = f"{name}/scratch-{best_scratch_lr(places, name):g}/0"
        if key in rows:
            found.append(rows[key][metric])
    return found


def main() -> None:
    """Do what the minutes allow, then print and write what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("imagenette", "bccd", "faces"):
        parser.add_argument(f"--{name}", required=True, help="folder of the data set")
    parser.add_argument("--work", required=True, help="folder for shards, runs and rows")
    parser.add_argument("--minutes", type=float, default=60.0, help="after which nothing new is begun")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--out", help="JSON file to write")
    places = parser.parse_args()
    places.work = str(Path(places.work).resolve())
    os.environ["RESNET_HOME"] = str(Path(places.work) / "home")
    Path(places.work).mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * places.minutes
    left: list[str] = []
    for name, do in work(places):
        rows = read_rows(places)
        if name in rows:
            continue
        if time.monotonic() > until:
            left.append(name)
            break
        rows[name] = do()
        (Path(places.work) / "rows.json").write_text(json.dumps(rows, indent=1))
        print(f"{name}: {rows[name]['top1_error']:.2f} %", file=sys.stderr, flush=True)
    found = {"commit": provenance.git_commit(), "steps": STEPS, "batch": BATCH, "size": SIZE, "lr": LR}
    found |= {"table": summary(places), "rows": read_rows(places), "left": left}
    for row in found["rows"].values():
        row.pop("checkpoint", None)
    if places.out:
        Path(places.out).write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["table"], indent=1))


if __name__ == "__main__":
    main()
