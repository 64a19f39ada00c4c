"""Distance of an image from a network's training images, in its pooled features: tells kinds of pictures it never saw.

Mahalanobis' distance to the nearest class (Lee et al. 2018, arXiv 1807.03888): the classes share one covariance. It is
kept beside a checkpoint as tensors, which run no code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from resnet.frozen import Frozen

DISTANCE = "distance.safetensors"
ABOUT = "about"  # key of the file's metadata


class DistanceCard(Frozen):
    """The threshold, and where it comes from. An image is unknown beyond it; share: of the images of `split` of `data`
    that are not; images: training images that the distance is measured from."""

    threshold: float
    share: float
    split: str
    data: str
    images: int


@dataclass(frozen=True)
class FeatureDistance:
    """whitening: (C, C), features times it have the covariance 1 inside a class; centers: (K, C), the classes' means
    after it; float32."""

    whitening: np.ndarray
    centers: np.ndarray
    card: DistanceCard

    def of(self, features: np.ndarray) -> np.ndarray:
        """(N, C) pooled features -> (N,) distance to the nearest center, float32."""
        return nearest(features @ self.whitening, self.centers)

    def to_bytes(self) -> bytes:
        """The file."""
        found = {"whitening": self.whitening, "centers": self.centers}
        tensors = {name: np.ascontiguousarray(value) for name, value in found.items()}
        return save(tensors, {ABOUT: self.card.model_dump_json()})


def nearest(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(N, C), (K, C) -> (N,) Euclidean distance to the nearest center, float32."""
    least = np.full(len(points), np.inf, np.float32)
    for center in centers:  # one after another: exact where |a|^2 - 2ab + |b|^2 cancels, and no (N, K, C) in memory
        np.minimum(least, np.square(points - center).sum(1), out=least)
    return np.sqrt(least)


def read_distance(folder: Path) -> FeatureDistance | None:
    """The distance of a checkpoint's folder; None: it has none. ValueError: it is damaged."""
    path = folder / DISTANCE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            card = DistanceCard.model_validate(json.loads((file.metadata() or {}).get(ABOUT, "{}")))
        whitening, centers = tensors["whitening"], tensors["centers"]
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{DISTANCE} of {folder} is damaged: {' '.join(str(error).split())[:200]}") from None
    width = whitening.shape[-1]
    fits = whitening.shape == (width, width) and centers.ndim == 2 and centers.shape[1] == width and len(centers) > 0
    if not fits or {tensor.dtype for tensor in tensors.values()} != {np.dtype(np.float32)}:
        shapes = f"{whitening.shape} and {centers.shape}, {whitening.dtype}"
        raise ValueError(f"{DISTANCE} of {folder} is damaged: its tensors are {shapes}")
    return FeatureDistance(whitening, centers, card)
