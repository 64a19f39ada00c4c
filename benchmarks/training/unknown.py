#!/usr/bin/env python3
"""Claim: the distance score of a network for blood cells tells faces from cells, and from other photographs.

    python benchmarks/training/unknown.py --weights CHECKPOINT --bccd DIR --faces DIR --work WORK

Classes are crops of the boxes (red, white, platelets) as in finetune.py. The network: a linear probe on the weights, or
--network with a checkpoint that was trained on WORK/shards/cells. The score is fitted on train, its threshold is the 95
% point of val. Beside it: Mahalanobis less the distance to one centre of all (Ren et al. 2021), the mean distance to
the ten nearest training images on the sphere (Sun et al. 2022), and the largest probability. AUROC of val against each
of the others. The last line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.training import finetune  # noqa: E402
from pipelines import provenance  # noqa: E402
from pipelines.evaluation import unknown_images  # noqa: E402
from pipelines.evaluation.linear_probe import Probe, probe  # noqa: E402
from pipelines.evaluation.pooled_features import Features, pooled_features  # noqa: E402
from pipelines.models.by_name import open_checkpoint  # noqa: E402
from pipelines.run import Data  # noqa: E402
from pipelines.shards.row_groups import open_split  # noqa: E402
from resnet.host.hardware import describe_hardware  # noqa: E402

NEIGHBOURS = 10


def features_of(model: Any, uri: str, split: str) -> Features:
    """Those of a split of some shards, which stay in $RESNET_HOME."""
    manifest, found = open_split(uri, split)
    return pooled_features(model, found, manifest.fingerprint())


def relative(train: Features, points: np.ndarray) -> np.ndarray:
    """Mahalanobis to the nearest class less that to the centre of all."""
    whitening, centers = unknown_images.fitted_centers(train)
    alone, center = unknown_images.fitted_centers(Features(train.features, np.zeros_like(train.labels)))
    nearest = unknown_images.nearest
    return nearest(points @ whitening, centers) ** 2 - nearest(points @ alone, center) ** 2


def neighbours(train: Features, points: np.ndarray) -> np.ndarray:
    """Mean distance to the ten nearest training images, features of length 1."""
    a, b = (x / np.maximum(1e-9, np.linalg.norm(x, axis=1, keepdims=True)) for x in (points, train.features))
    return np.sort(np.sqrt(np.maximum(0, 2 - 2 * a @ b.T)), axis=1)[:, :NEIGHBOURS].mean(1)


def main() -> None:
    """Prepare, probe, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="checkpoint to probe")
    parser.add_argument("--network", help="checkpoint that was trained on the cells, in place of a probe")
    parser.add_argument("--others", nargs="*", default=[], help="more shards of other pictures")
    for name in ("bccd", "faces", "work"):
        parser.add_argument(f"--{name}", required=True)
    words = parser.parse_args()
    cells, faces = (finetune.shards(name, words) for name in ("cells", "faces"))
    network = words.network or probe(words.weights, Probe(data=Data(path=cells))).checkpoint
    model, _ = open_checkpoint(network)
    manifest, val = open_split(cells, "val")
    train, own = (features_of(model, cells, split) for split in ("train", "val"))
    rows = []
    for others in (faces, *words.others):
        _, figures = unknown_images.measured(model, manifest, val, 0.95, others)
        assert figures.others is not None
        theirs = features_of(model, others, figures.others.split)
        row: dict[str, Any] = {"others": Path(others).name, "images": figures.others.images}
        row |= {"mahalanobis": figures.others.auroc, "unknown": figures.others.unknown}
        for score in (relative, neighbours):
            known, other = score(train, own.features), score(train, theirs.features)
            row[score.__name__] = unknown_images.auroc_of(known, other)
        rows.append(row | {"largest_probability": figures.others.auroc_of_probability})
        print(figures.shown, file=sys.stderr)
    about = {"command": f"benchmarks/training/unknown.py {' '.join(sys.argv[1:])}", "commit": provenance.git_commit()}
    print(json.dumps(about | {"hardware": describe_hardware(), "known": len(own.labels), "rows": rows}))


if __name__ == "__main__":
    main()
