"""Mean and standard deviation of a training set's pixels. No torch here."""

from __future__ import annotations

import numpy as np


def pixel_statistics(images: np.ndarray, per_pixel: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean, (3, S, S) or (3, 1, 1), and std, (3, 1, 1), of (N, S, S, 3) uint8 images, in [0, 255], float32."""
    axes = (0,) if per_pixel else (0, 1, 2)
    mean = images.mean(axis=axes, dtype=np.float64)
    std = images.reshape(-1, 3).astype(np.float32).std(axis=0, dtype=np.float64)
    mean = mean.transpose(2, 0, 1) if per_pixel else mean.reshape(3, 1, 1)
    return mean.astype(np.float32), std.reshape(3, 1, 1).astype(np.float32)
