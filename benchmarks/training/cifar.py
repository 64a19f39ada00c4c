"""CIFAR-10 as arrays, from its official binary files or from sheets of images, in the order of our shards."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32  # bytes: a label, then the pixels, channels first
FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "val": ("test_batch.bin",)}
SHEETS = {"train": "train", "val": "test"}


class Split(NamedTuple):
    """images: (N, 32, 32, 3) uint8; labels: (N,) int64; rows: of each row group that the shards have."""

    images: np.ndarray
    labels: np.ndarray
    rows: tuple[int, ...]


class Cifar10(NamedTuple):
    """Both splits. sha256: of all pixels and labels, in the order of the files."""

    train: Split
    val: Split
    sha256: str


def read(path: str) -> Cifar10:
    """The set in a folder: cifar-10-batches-bin or what holds it, or sheets with labels-train.npy beside them.

    Images come in the order in which jobs/write_shards.py writes them, so that an epoch here is an epoch of the engine.
    """
    folder = Path(path).expanduser()
    binary = folder / "cifar-10-batches-bin" if (folder / "cifar-10-batches-bin").is_dir() else folder
    if (binary / FILES["train"][0]).is_file():
        raw = {split: _binary(binary, files) for split, files in FILES.items()}
    elif (folder / "labels-train.npy").is_file():
        raw = {split: _sheets(folder, name) for split, name in SHEETS.items()}
    else:
        raise ValueError(f"data must be a folder with {FILES['train'][0]} or labels-train.npy in it, got {path}")
    digest = hashlib.sha256()
    for images, labels in raw.values():
        digest.update(images.tobytes())
        digest.update(labels.tobytes())
    group = (
        512 if sum(len(labels) for _, labels in raw.values()) >= 20_000 else 128
    )  # pipelines/preparation/shard_plan.py's defaults
    train, val = (in_shard_order(*raw[split], number, group) for number, split in enumerate(FILES))
    return Cifar10(train, val, digest.hexdigest())


def in_shard_order(images: np.ndarray, labels: np.ndarray, number: int, group: int) -> Split:
    """Shuffled once as preparation does with seed 0. number: of the split; group: images of a row group."""
    order = np.random.default_rng((0, number)).permutation(len(labels))
    whole, rest = divmod(len(labels), group)
    return Split(images[order], labels[order], (group,) * whole + ((rest,) if rest else ()))


def _binary(folder: Path, files: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"data must hold {missing[0]}, it is missing in {folder}")
    records = np.concatenate([np.fromfile(folder / name, np.uint8) for name in files])
    if len(records) % RECORD:
        raise ValueError(f"{folder} must hold whole records of {RECORD} bytes, got {len(records)} bytes")
    return _split(records.reshape(-1, RECORD)[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[::RECORD])


def _sheets(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Sheets of 50 x 40 images, row by row: <name>-*.webp."""
    from PIL import Image

    tiles = []
    for sheet in sorted(folder.glob(f"{name}-*.webp")):
        pixels = np.asarray(Image.open(sheet).convert("RGB"))
        tiles.append(pixels.reshape(50, 32, 40, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3))
    labels, found = np.load(folder / f"labels-{name}.npy"), sum(map(len, tiles))
    if found != len(labels):
        raise ValueError(f"data must hold {len(labels)} images in {name}-*.webp, got {found} in {folder}")
    return _split(np.concatenate(tiles), labels)


def _split(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(images), labels.astype(np.int64)
