import pytest

from pipelines.dense.dense_records import DenseOutcome, JudgedByQuality, dense_curves, dense_table
from resnet.dense.dense_checkpoint import DenseRow

ROW = {"lr": 0.1, "seconds": 1.0, "images_per_second": 2.0}


def judged(quality, protocol="p", task="detection"):
    return JudgedByQuality.by_quality(quality, 87, "data", task, protocol, "cells")


def test_a_higher_figure_is_fewer_wrong():
    assert judged(45.5).wrong < judged(45.4).wrong
    assert judged(45.5).shown(judged(45.5).wrong) == "45.50 %"
    assert judged(45.5).wrong_of(judged(45.5).tags) == judged(45.5).wrong
    assert judged(45.5).tags["mean_ap"] == pytest.approx("45.5") or float(judged(45.5).tags["mean_ap"]) == 45.5


def test_only_versions_of_one_task_and_protocol_compare():
    mine = judged(45.5)
    assert mine.other(judged(1.0).tags) is None
    assert mine.other(judged(1.0, "other").tags) == "by other, this one by p"
    assert mine.other(judged(1.0, task="segmentation").tags) == "for segmentation, this one for detection"


def test_curves_and_table(tmp_path):
    rows = [DenseRow(**ROW, epoch=i, step=3 * i + 3, train_loss=2.0 - i, mean_iou=50.0 + i) for i in range(2)]
    assert dense_curves("run", "segmentation", rows, tmp_path).stat().st_size > 1000
    outcome = DenseOutcome(
        run="run",
        task="segmentation",
        recipe="r",
        seed=0,
        mean_iou=51.0,
        by_class={"cell": 60.0, "none": None},
        examples=4,
        epochs=2,
        steps=6,
        seconds=1,
        train_seconds=1,
        images_per_second=2,
        data="d",
        checkpoint="c",
    )
    table = dense_table(outcome)
    assert "51.00 % on 4 images" in table
    assert "60.00 %" in table
    assert outcome.quality == 51.0
