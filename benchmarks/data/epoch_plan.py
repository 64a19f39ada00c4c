#!/usr/bin/env python3
"""The plan of an epoch of 1.28 and of 14 million images: seconds and memory on the driver, and what is read twice.

    python benchmarks/data/epoch_plan.py --out results/epoch-plan.json        a minute on one core; no image, no Ray

Claims: manifest and plan take a few hundred bytes of memory an image at most, and up to 512 workers a rank reads no
more than 1.5 times the bytes that it trains on. A manifest of that size is made up (row groups of 128 images, twelve in
a shard, as jobs/write_shards.py makes them of ImageNet) and read, checked and planned with by the functions that a
training calls, in a process of its own. Bytes that are read follow from the plan: each rank's row groups, window by
window, against its rows. Aside: the same where a window has 16 row groups at any batch, as until November 2026.
The last line of stdout is JSON; the rest is on stderr.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines.provenance import git_commit
from pipelines.shards.manifest import MANIFEST, Encoding, Manifest, Origin, Shard
from pipelines.shards.row_groups import open_split
from pipelines.stream.example_order import WINDOW, Order, default_window
from resnet.host.hardware import describe_hardware
from resnet.image_class import ImageClass

IMAGES = {1_281_167: 1000, 14_197_122: 21_841}  # ImageNet-1k, ImageNet-21k: images, classes
ROW_GROUP, GROUPS, IMAGE_BYTES = 128, 12, 110_000
WINDOWS = 20  # whose shares are timed


class Scale(NamedTuple):
    """Workers, and images of a step of each. window: None: as a run has it by default."""

    workers: int
    share: int
    window: int | None = None


SCALES = (
    Scale(8, 32), Scale(64, 32), Scale(512, 32), Scale(8, 256), Scale(64, 256), Scale(512, 16),
    Scale(64, 4), Scale(64, 4, 64), Scale(64, 32, WINDOW), Scale(512, 32, WINDOW),
)  # fmt: skip


def made_up(images: int, classes: int) -> Manifest:
    """A manifest of so many images that are nowhere."""
    per_shard, shards = ROW_GROUP * GROUPS, []
    total = -(-images // per_shard)
    for number in range(total + 1):  # the last is val's
        held = min(per_shard, images - number * per_shard) if number < total else per_shard
        groups = tuple(min(ROW_GROUP, held - at) for at in range(0, held, ROW_GROUP))
        split, place, of = ("train", number, total) if number < total else ("val", 0, 1)
        shards.append(
            Shard(
                file=f"{split}-{place:05d}-of-{of:05d}.parquet",
                split="train" if split == "train" else "val",
                examples=held,
                row_groups=groups,
                bytes=held * IMAGE_BYTES,
                sha256=hashlib.sha256(str(number).encode()).hexdigest(),
            )
        )
    return Manifest(
        classes=tuple(ImageClass(id=i, wnid=f"n{i:08d}", name=f"class {i}") for i in range(classes)),
        shards=tuple(shards),
        row_group_size=ROW_GROUP,
        shuffle_seed=0,
        encoding=Encoding(),
        source=Origin(kind="folders", path="nowhere", images=images, fingerprint="0" * 64),
    )


def peak() -> int:
    """Most bytes that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def planned(uri: str) -> dict[str, Any]:
    """What the driver and each rank compute of a manifest, timed. In a process that has done nothing else."""
    base, began = peak(), time.perf_counter()
    manifest, split = open_split(uri, "train")
    fingerprint, opened = manifest.fingerprint(), time.perf_counter()
    assert len(fingerprint) == 64
    order = Order(split.rows, 256, default_window(256), seed=0)
    remaining = order.remaining(0, 0)
    first = time.perf_counter()
    order.remaining(0, order.steps_per_epoch // 2)
    again = time.perf_counter()
    for window, skip in remaining[:WINDOWS]:
        order.share(0, window, 0, 8, skip)
    shared = (time.perf_counter() - again) / WINDOWS
    held = peak() - base
    begun = time.perf_counter()
    travels = pickle.dumps(split)
    pickle.loads(travels)
    return {
        "images": split.examples,
        "row_groups": len(split.rows),
        "windows": len(remaining),
        "open_s": round(opened - began, 3),
        "plan_s": round(first - opened, 4),
        "plan_again_s": round(again - first, 4),
        "window_ms": round(1e3 * shared, 3),
        "rank_epoch_s": round(shared * len(remaining), 2),
        "memory_mib": round(held / 2**20, 1),
        "bytes_an_image": round(held / split.examples, 1),
        "travels_mib": round(len(travels) / 2**20, 2),
        "travels_ms": round(1e3 * (time.perf_counter() - begun), 1),
    }


def reading(images: int, scale: Scale) -> dict[str, Any]:
    """Bytes that ranks read over an epoch against those that they train on, of images of one size."""
    batch, groups = scale.workers * scale.share, -(-images // ROW_GROUP)
    rows = np.full(groups, ROW_GROUP)
    rows[-1] = images - ROW_GROUP * (groups - 1)
    order = Order(tuple(rows.tolist()), batch, scale.window or default_window(batch), seed=0)
    places = [order.slice(rank, scale.workers) for rank in range(scale.workers)]
    rank_of = np.repeat(np.arange(scale.workers), [place.stop - place.start for place in places])
    read, used, held = (np.zeros(scale.workers, np.int64) for _ in range(3))
    for window, _ in order.remaining(0, 0):
        batches, _ = order.batches(0, window)
        pairs = np.unique(rank_of[None, :] * groups + batches)
        now = np.bincount(pairs // groups, rows[pairs % groups], minlength=scale.workers).astype(np.int64)
        read, held = read + now, np.maximum(held, now)
        used += len(batches) * np.bincount(rank_of, minlength=scale.workers)
    return {
        "workers": scale.workers,
        "batch": batch,
        "window": order.groups_per_window,
        "read_of_used": round(float(read.sum() / used.sum()), 3),
        "worst_rank": round(float((read / used).max()), 3),
        "held_mib": round(float(held.max()) * IMAGE_BYTES / 2**20),
    }


def alone(uri: str) -> dict[str, Any]:
    """`planned`, in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--one", uri], stdout=subprocess.PIPE, check=True, timeout=600)
    return json.loads(done.stdout)


def main() -> int:
    """Plan, compute, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--images", type=int, nargs="+", default=list(IMAGES), help="sizes of the made up sets")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(planned(options.one)))
        return 0
    plans = []
    for images in options.images:
        with tempfile.TemporaryDirectory(prefix="epoch-plan-") as folder:
            Path(folder, MANIFEST).write_text(made_up(images, IMAGES.get(images, 1000)).model_dump_json())
            plans.append(alone(folder))
        print(json.dumps(plans[-1]), file=sys.stderr, flush=True)
    readings = []
    for scale in SCALES:
        readings.append(reading(min(options.images), scale))
        print(json.dumps(readings[-1]), file=sys.stderr, flush=True)
    result = {
        "benchmark": "epoch_plan",
        "plans": plans,
        "readings": readings,
        "image_bytes": IMAGE_BYTES,
        "command": "python benchmarks/data/epoch_plan.py " + " ".join(sys.argv[1:]),
        "commit": git_commit(),
        "hardware": describe_hardware(),
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
