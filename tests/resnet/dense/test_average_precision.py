import math

import numpy as np
import pytest

from resnet.dense.average_precision import average_precision
from resnet.dense.detectors import Detections
from resnet.dense.targets import Boxes


def found(boxes, labels, scores):
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(scores))


ONE = [10.0, 10.0, 30.0, 30.0]
OTHER = [50.0, 50.0, 90.0, 70.0]


def test_all_right_is_100_percent():
    wanted = [Boxes.of([ONE, OTHER], [0, 1]), Boxes.of([ONE], [1])]
    exact = [found(b.boxes, b.labels, [0.9] * len(b.labels)) for b in wanted]
    precision = average_precision(exact, wanted, 3)
    assert precision[:3] == pytest.approx((100, 100, 100))
    assert precision.by_class[:2] == pytest.approx((100, 100))
    assert math.isnan(precision.by_class[2])  # no object of that class


def test_a_box_at_an_overlap_of_0_64_counts_at_three_of_ten_thresholds():
    """20 x 16 of 20 x 20: IoU 0.8 of one axis; 16 x 16 of 20 x 20 is 0.64: right at 0.5, 0.55 and 0.6."""
    wanted = [Boxes.of([[0, 0, 20, 20]], [0])]
    precision = average_precision([found([[0, 0, 16, 16]], [0], [0.5])], wanted, 1)
    assert precision[:3] == pytest.approx((30, 100, 0))


def test_a_surer_wrong_box_halves_the_precision():
    wanted = [Boxes.of([ONE], [0])]
    precision = average_precision([found([OTHER, ONE], [0, 0], [0.9, 0.5])], wanted, 1)
    assert precision.at_50 == pytest.approx(50)


def test_an_ignored_object_neither_counts_nor_costs():
    wanted = [Boxes.of([ONE, OTHER], [0, 0], [False, True])]
    assert average_precision([found([ONE, OTHER], [0, 0], [0.5, 0.9])], wanted, 1).at_50 == pytest.approx(100)
    assert average_precision([found([ONE], [0], [0.5])], wanted, 1).at_50 == pytest.approx(100)


def test_nothing_found_is_0_percent():
    precision = average_precision([found([], [], [])], [Boxes.of([ONE], [1])], 2)
    assert precision[:3] == (0, 0, 0)
    assert math.isnan(precision.by_class[0])
    assert precision.by_class[1] == 0
