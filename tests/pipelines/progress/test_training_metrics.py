import math
from typing import Any

from pipelines.progress.status import Status
from pipelines.progress.training_metrics import GAUGES, export_metrics, readings

STATUS = Status(
    run="r",
    phase="training",
    step=20,
    total=100,
    epoch=2,
    epochs=10,
    loss=0.5,
    error=12.5,
    images_per_second=99,
    seconds_left=8,
    machine={},
    rows=(
        {"top1_error": 30.0, "data_wait_fraction": 0.5, "replaced_images": 2},
        {"top1_error": None, "data_wait_fraction": 0.25, "replaced_images": 1},
    ),
)


def test_every_gauge_has_its_reading() -> None:
    found = readings(STATUS)
    assert set(found) == set(GAUGES)
    assert found["resnet_training_error_percent"] == 12.5
    assert found["resnet_training_data_wait_fraction"] == 0.25, "of the last epoch"
    assert found["resnet_training_top1_error_percent"] == 30.0, "of the last epoch that was evaluated"
    assert found["resnet_training_replaced_images_total"] == 3


def test_what_is_not_known_yet_is_no_reading() -> None:
    found = readings(STATUS.model_copy(update={"rows": (), "loss": math.nan, "error": math.nan}))
    assert set(GAUGES) - set(found) == {
        "resnet_training_loss",
        "resnet_training_error_percent",
        "resnet_training_data_wait_fraction",
        "resnet_training_top1_error_percent",
        "resnet_training_replaced_images_total",
    }


def test_ray_takes_the_readings(ray_local: Any) -> None:
    import ray

    @ray.remote(num_cpus=0)
    def worker() -> int:
        export_metrics(STATUS)
        export_metrics(STATUS)
        return len(readings(STATUS))

    assert ray.get(worker.remote()) == len(GAUGES)
