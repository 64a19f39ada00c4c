"""AlexNet's colour shift against its published covariance."""

from collections.abc import Callable

import numpy as np

from resnet.images.crops import pca_color

Photograph = Callable[..., np.ndarray]


def test_the_eigenvectors_are_a_rotation_of_the_colours():
    assert np.allclose(pca_color.EIGENVECTORS.T @ pca_color.EIGENVECTORS, np.eye(3), atol=1e-3)
    assert (np.diff(pca_color.EIGENVALUES) < 0).all()


def test_the_colour_shift_has_alexnets_covariance():
    rng = np.random.default_rng(0)
    shifts = np.stack([pca_color.pca_shift(rng) for _ in range(20_000)])
    assert shifts.dtype == np.float32
    scale = np.diag((255 * 0.1 * pca_color.EIGENVALUES) ** 2)
    expected = pca_color.EIGENVECTORS @ scale @ pca_color.EIGENVECTORS.T
    assert np.allclose(np.cov(shifts.T), expected, rtol=0.05, atol=0.02)
    assert np.abs(shifts.mean(0)).max() < 0.1
    assert not pca_color.pca_shift(rng, 0).any()


def test_both_colours_take_the_same_draws_and_differ_in_strength():
    weak, strong = (
        pca_color.pca_shift(np.random.default_rng(3), color=color) @ pca_color.EIGENVECTORS
        for color in ("pca", "pca-std")
    )
    np.testing.assert_allclose(strong / weak, 1 / np.sqrt(pca_color.EIGENVALUES), rtol=0.01)
    shifts = np.stack([pca_color.pca_shift(np.random.default_rng(i), color="pca-std") for i in range(4000)])
    np.testing.assert_allclose((shifts @ pca_color.EIGENVECTORS).std(0), (11.9, 3.5, 1.7), rtol=0.05)
