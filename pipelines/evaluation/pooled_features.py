"""Pooled features of a split, kept on disk: the first step of fine-tuning needs each image only once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipelines.progress.console import meter
from pipelines.run import home
from pipelines.shards.row_groups import Split
from pipelines.stream.augmentation import center_or_black
from resnet.host.cpu_quota import usable_cores

if TYPE_CHECKING:
    from resnet.evaluation.scorer import Model

BATCH = 64


class Features(NamedTuple):
    """features: (N, C) float32, after global average pooling; labels: (N,) int64, in the order of the split."""

    features: np.ndarray
    labels: np.ndarray


def pooled_features(model: Model, split: Split, data_sha256: str, *, show: bool = True) -> Features:
    """Those of a network for all images of a split, one centre crop each, in float32: computed in this process, on its
    GPU if it has one, or read again from $RESNET_HOME/features. data_sha256: of the shards."""
    path = Path(home(), "features", f"{_key(model, split, data_sha256)}.npz")
    if path.exists():
        with np.load(path, allow_pickle=False) as kept:
            return Features(kept["features"], kept["labels"])
    found = _computed(model, split, show)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.part-{os.getpid()}.npz")
    np.savez(part, features=found.features, labels=found.labels)
    part.replace(path)
    return found


def _key(model: Model, split: Split, data_sha256: str) -> str:
    """All that decides the features: weights below the classifier, the images' preparation, the data."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.weights.items()):
        if not name.startswith("fc."):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    for constant in (model.mean, model.std):
        digest.update(constant.cpu().contiguous().numpy().tobytes())
    images = model.images.model_dump_json(include={"size", "policy", "eval_shorter_side", "eval_interpolation"})
    rest = [model.network, images, data_sha256, split.name, split.rows, split.before]
    digest.update(json.dumps(rest).encode())
    return digest.hexdigest()[:32]


def _computed(model: Model, split: Split, show: bool) -> Features:
    import torch

    from resnet.training.step import Normalize, set_products, to_device

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    set_products("float32")
    net = model.build()
    to_device(net, device)
    normalize = Normalize(model.mean, model.std).to(device)
    features: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    shown = meter(f"features of {split.name}", split.examples) if show else nullcontext()
    with torch.inference_mode(), shown as counter:
        for pixels, own in _crops(model, split):
            features.append(net.embed(normalize(torch.from_numpy(pixels).to(device))).float().cpu().numpy())
            labels.append(own)
            if counter is not None:
                counter.add(len(own))
    return Features(np.concatenate(features), np.concatenate(labels))


def _crops(model: Model, split: Split) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of centre crops, (n, S, S, 3) uint8, and their labels; the next is decoded while one is computed."""
    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode") as pool:
        waiting = None
        for group in range(len(split.rows)):
            rows = split.read(group)
            for start in range(0, len(rows["image"]), BATCH):
                images, own = rows["image"][start : start + BATCH], rows["label"][start : start + BATCH]
                crops = [pool.submit(center_or_black, data, model.images) for data in images]
                coming = crops, np.asarray(own, np.int64)
                if waiting is not None:
                    yield np.stack([f.result() for f in waiting[0]]), waiting[1]
                waiting = coming
        if waiting is not None:
            yield np.stack([f.result() for f in waiting[0]]), waiting[1]
