"""Input of the bare side of benchmarks/training/train_step.py: shards through plain torch, without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipelines.run import Run
from resnet.images.crops.evaluation_crops import center_crop
from resnet.images.crops.padded_crops import border_color, draw_pad_crop, pad_crop_flip
from resnet.images.crops.training_crops import random_resized_crop


def statistics_of(run: Run) -> tuple[Tensor, Tensor]:
    """Mean and std of the input; what they are does not matter for the time of a step, their shapes do."""
    size = run.recipe.images.size
    shape = (3, size, size) if run.recipe.images.mean == "per-pixel" else (3, 1, 1)
    return torch.full(shape, 120.0), torch.full((3, 1, 1), 60.0)


def _rows(run: Run) -> tuple[list[bytes], np.ndarray, int]:
    """Encoded images and labels of the training split, and the number of classes."""
    from pyarrow import parquet

    from pipelines.shards.manifest import read_manifest
    from pipelines.training.run_data import shards

    uri = shards(run)
    manifest = read_manifest(uri)
    tables = [parquet.read_table(f"{uri}/{s.file}", columns=["image", "label"]) for s in manifest.of_split("train")]
    encoded = [data for table in tables for data in table["image"].to_pylist()]
    labels = np.concatenate([table["label"].to_numpy() for table in tables]).astype(np.int64)
    return encoded, labels, len(manifest.classes)


def batches(run: Run, rank: int, workers: int, streamed: bool) -> tuple[Iterator[Any], int]:
    """Batches of uint8 images (N, S, S, 3) and labels without end, and the number of classes."""
    encoded, labels, classes = _rows(run)
    local = run.recipe.optim.batch_size // workers
    make = _streamed if streamed else _resident
    return make(run, encoded, labels, local, rank), classes


def _resident(run: Run, encoded: list[bytes], labels: np.ndarray, local: int, rank: int) -> Iterator[Any]:
    """The set in memory; crops and mirror images by the engine's own function."""
    policy = run.recipe.images
    assert policy.pad is not None
    pixels = np.stack([center_crop(data, policy.size, policy.size) for data in encoded])
    border = border_color(policy.border, pixels.mean(0).transpose(2, 0, 1))
    rng = np.random.default_rng(rank)
    while True:
        offsets, flips = draw_pad_crop(rng, len(labels), policy.pad)
        order = rng.permutation(len(labels))
        for start in range(0, len(order) - local + 1, local):
            index = order[start : start + local]
            crops = pad_crop_flip(pixels[index], offsets[index], flips[index], policy.pad, border)
            yield torch.from_numpy(crops), torch.from_numpy(labels[index])


class _Encoded(Dataset[Any]):
    """Encoded images in memory, decoded into random resized crops by the engine's own functions."""

    def __init__(self, run: Run, encoded: list[bytes], labels: np.ndarray) -> None:
        self.policy, self.encoded, self.labels = run.recipe.images, encoded, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        assert self.policy.area is not None
        rng = np.random.default_rng(index)
        crop = random_resized_crop(self.encoded[index], rng, self.policy.size, self.policy.area, flip=self.policy.flip)
        return torch.from_numpy(crop), int(self.labels[index])


def _streamed(run: Run, encoded: list[bytes], labels: np.ndarray, local: int, rank: int) -> Iterator[Any]:
    """torch's DataLoader with a process of its own, as most would have it."""
    generator = torch.Generator().manual_seed(rank)
    data = _Encoded(run, encoded, labels)
    options: dict[str, Any] = {"num_workers": 1, "persistent_workers": True, "drop_last": True}
    loader = DataLoader(data, local, shuffle=True, generator=generator, **options)
    while True:
        yield from loader
