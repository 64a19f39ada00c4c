"""AlexNet's PCA colour augmentation. Krizhevsky et al. 2012, section 4.1."""

from __future__ import annotations

from typing import Literal

import numpy as np

# Eigenvalues and eigenvectors (columns) of the covariance of RGB over ImageNet's training pixels in [0, 1], as
# facebookarchive/fb.resnet.torch:datasets/imagenet.lua gives them. Krizhevsky et al. 2012, section 4.1.
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


def pca_shift(rng: np.random.Generator, std: float = 0.1, color: Literal["pca", "pca-std"] = "pca") -> np.ndarray:
    """AlexNet's PCA colour: (3,) float32 to add to R, G and B in [0, 255], one draw an image.

    Adding it commutes with subtracting a mean, so the device may do it after normalising (divide it by the same std).
    color: `pca` multiplies the draws by the eigenvalues (standard deviations of 5.5, 0.5 and 0.1 grey levels along the
    eigenvectors), `pca-std` by their square roots (11.9, 3.5 and 1.7). The draws are the same.
    """
    lengths = EIGENVALUES if color == "pca" else np.sqrt(EIGENVALUES)
    return (255 * EIGENVECTORS @ (rng.normal(0, std, 3) * lengths)).astype(np.float32)
