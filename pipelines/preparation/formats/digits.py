"""scikit-learn's 1,797 handwritten digits, embedded in the library."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.preparation.formats.cifar import SIDE, png
from pipelines.preparation.listing import Listing, classes_of, in_order, listed
from pipelines.shards.manifest import SplitName
from pipelines.storage import Folder


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """(1797, 8, 8) uint8 in [0, 255], ink is bright, and (1797,) labels."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    return np.round(data.images * (255 / 16)).astype(np.uint8), data.target


def digits() -> Listing:
    """The 1,797 handwritten digits of scikit-learn: 1,437 to train; a fifth, 360, held out, drawn within each class."""
    rows = [(f"digits/{i:04d}", int(label), "digits", i, 8 * 8) for i, label in enumerate(_digits()[1])]
    # By hash, not by a generator of random numbers, whose stream numpy may change: the split is the same for ever.
    drawn = sorted(rows, key=lambda row: (row[1], hashlib.sha256(row[0].encode()).digest()))
    val = {row[3] for row in drawn[::5]}
    tables: dict[SplitName, pa.Table] = {
        "train": in_order([listed(row for i, row in enumerate(rows) if i not in val)]),
        "val": in_order([listed(rows[i] for i in sorted(val))]),
    }
    return Listing("digits", Folder("digits"), classes_of([str(i) for i in range(10)]), tables)


def read_digits(source: Folder, rows: pa.Table) -> Iterator[bytes]:
    """The digits of rows as PNG, in order: 8x8 scaled to 32x32 (bicubic), the same in all three channels."""
    for i in rows["offset"].to_pylist():
        image = Image.fromarray(_digits()[0][i]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        yield png(np.asarray(image.convert("RGB")))
