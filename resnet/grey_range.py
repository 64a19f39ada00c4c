"""Grey images of more than 8 bits: the range of levels that becomes 0 to 255.

X-ray, microscopy and depth images hold 10 to 16 bits in 16-bit files. Without a range 16 bits lose the lower eight, and
12-bit data keeps 16 levels of 256 (pytorch/vision#2218). The range must be the same in training and serving.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

MOST = 2**16 - 1
PERCENTILES = 0.1, 99.9  # of a measured range: dead and saturated pixels are left out


@dataclass(frozen=True, slots=True)
class GreyRange:
    """Levels low and below become 0, high and above 255; between them they fall into 256 equal bins.

    A range of fewer than 256 levels is spread evenly.
    """

    low: int = 0
    high: int = MOST

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= MOST:
            raise ValueError(f"a range of grey levels must have 0 <= low < high <= {MOST}, got {self.low}, {self.high}")

    def apply(self, levels: np.ndarray) -> np.ndarray:
        """Integer levels of any shape, 0 to 65535 -> uint8."""
        return _table(self.low, self.high)[levels]


@lru_cache(maxsize=16)
def _table(low: int, high: int) -> np.ndarray:
    """uint8 of each of the 65,536 levels."""
    width = high - low
    above = np.clip(np.arange(MOST + 1, dtype=np.int64) - low, 0, width)
    return (above * 256 // (width + 1) if width >= 255 else above * 255 // width).astype(np.uint8)


def measure(images: Iterable[np.ndarray], percentiles: tuple[float, float] = PERCENTILES) -> GreyRange | None:
    """The range between two percentiles of all pixels of some images of grey levels; None if there are no images.

    images: integers, 0 to 65535, of any shape (decoding.grey_levels gives them).
    """
    counts = np.zeros(MOST + 1, np.int64)
    for levels in images:
        counts += np.bincount(levels.ravel(), minlength=MOST + 1)
    total = int(counts.sum())
    if not total:
        return None
    ends = np.searchsorted(np.cumsum(counts), [max(1, share / 100 * total) for share in percentiles])
    low, high = int(ends[0]), min(int(ends[1]), MOST)
    return GreyRange(low, high) if low < high else GreyRange(min(low, MOST - 1), min(low, MOST - 1) + 1)
