import math
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from resnet.dense.mean_iou import confusion, mask_figures
from resnet.dense.targets import IGNORED


def test_as_scikit_learn_counts_it():
    rng = np.random.default_rng(0)
    wanted, found = (rng.integers(0, 3, (20, 30)).astype(np.uint8) for _ in range(2))
    figures = mask_figures(confusion(found, wanted, 3))
    how: Any = None
    theirs: Any = jaccard_score(wanted.ravel(), found.ravel(), average=how, labels=[0, 1, 2])
    assert figures.by_class == pytest.approx(100 * theirs)
    assert figures.mean_iou == pytest.approx(100 * theirs.mean())
    assert figures.accuracy == pytest.approx(100 * (wanted == found).mean())


def test_tables_of_images_add_up():
    rng = np.random.default_rng(1)
    wanted, found = (rng.integers(0, 2, (2, 8, 8)).astype(np.uint8) for _ in range(2))
    parts = confusion(found[0], wanted[0], 2) + confusion(found[1], wanted[1], 2)
    assert np.array_equal(parts, confusion(found.reshape(16, 8), wanted.reshape(16, 8), 2))


def test_ignored_pixels_and_absent_classes_do_not_count():
    wanted = np.array([[0, 0], [1, IGNORED]], np.uint8)
    figures = mask_figures(confusion(np.array([[0, 1], [1, 2]], np.uint8), wanted, 4))
    assert figures.by_class[:2] == pytest.approx((50, 50))
    assert math.isnan(figures.by_class[3])
    assert (figures.mean_iou, figures.accuracy) == pytest.approx((50, 200 / 3))


def test_masks_of_other_sizes():
    with pytest.raises(ValueError, match="masks must have one size"):
        confusion(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)
