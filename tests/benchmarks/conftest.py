"""A small CIFAR-10 that can be learned, in the official binary files."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.training import cifar


@pytest.fixture(scope="session")
def tiny_cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cifar-10-batches-bin with 5 x 70 training and 40 test images: a class is a colour, under noise."""
    folder = tmp_path_factory.mktemp("cifar") / "cifar-10-batches-bin"
    folder.mkdir()
    rng = np.random.default_rng(0)
    colours = rng.integers(40, 216, (10, 3, 1))
    for name in (*cifar.FILES["train"], *cifar.FILES["val"]):
        labels = rng.integers(0, 10, 70 if "data" in name else 40)
        pixels = np.clip(colours[labels] + rng.normal(0, 30, (len(labels), 3, 1024)), 0, 255)
        records = np.concatenate([labels[:, None], pixels.reshape(len(labels), -1)], axis=1)
        records.astype(np.uint8).tofile(folder / name)
    (folder / "batches.meta.txt").write_text("\n".join(cifar.CLASSES) + "\n")
    return folder
