"""Mean and standard deviation of a training set against numpy's over the whole array."""

import numpy as np
import pytest

from resnet.images.pixel_statistics import pixel_statistics


def test_statistics_are_those_of_numpy() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)
    mean, std = pixel_statistics(images, per_pixel=True)
    np.testing.assert_allclose(mean, images.mean(0).transpose(2, 0, 1), rtol=1e-6)
    np.testing.assert_allclose(std.ravel(), images.reshape(-1, 3).std(0), rtol=1e-4)
    mean, _ = pixel_statistics(images, per_pixel=False)
    np.testing.assert_allclose(mean.ravel(), images.mean((0, 1, 2)), rtol=1e-6)


@pytest.mark.parametrize(("per_pixel", "shape"), [(True, (3, 5, 5)), (False, (3, 1, 1))])
def test_shapes_are_those_that_a_batch_is_normalised_with(per_pixel: bool, shape: tuple[int, ...]) -> None:
    images = np.full((7, 5, 5, 3), [10, 20, 255], np.uint8)
    mean, std = pixel_statistics(images, per_pixel)
    assert (mean.shape, mean.dtype, std.shape, std.dtype) == (shape, np.float32, (3, 1, 1), np.float32)
    assert (mean == np.array([10, 20, 255]).reshape(3, 1, 1)).all()
    assert (std == 0).all()


def test_sums_are_exact_where_float32_would_lose_the_last_images() -> None:
    """2**24 + 1 is no float32: a sum of 70,000 bright pixels in it stops growing."""
    images = np.full((20_000, 2, 2, 3), 255, np.uint8)
    images[-5_000:] = 254
    mean, std = pixel_statistics(images, per_pixel=False)
    np.testing.assert_allclose(mean.ravel(), 254.75, rtol=1e-7)
    np.testing.assert_allclose(std.ravel(), np.sqrt(0.75 * 0.25), rtol=1e-6)
