"""A training's figures for Prometheus, by the exporter that every Ray node has (its metrics port)."""

from __future__ import annotations

from functools import cache
from typing import Any

from pipelines.progress.status import Status

# Ray puts `ray_` before each name. Each is a gauge with the label `run`.
GAUGES = {
    "resnet_training_step": "Optimiser steps done",
    "resnet_training_steps_total": "Optimiser steps of the whole training",
    "resnet_training_loss": "Loss over the epoch so far",
    "resnet_training_error_percent": "Training error over the epoch so far",
    "resnet_training_images_per_second": "Training images a second over all ranks",
    "resnet_training_seconds_left": "Seconds to the end at the present speed",
    "resnet_training_data_wait_fraction": "Share of the last epoch's time in which rank 0 waited for data",
    "resnet_training_top1_error_percent": "Validation error of the last epoch that was evaluated",
    "resnet_training_replaced_images_total": "Images that could not be decoded and were replaced, over all epochs",
}


def readings(status: Status) -> dict[str, float]:
    """The value of each gauge that is known from a status: a loss of no step yet is NaN."""
    found = {
        "resnet_training_step": status.step,
        "resnet_training_steps_total": status.total,
        "resnet_training_loss": status.loss,
        "resnet_training_error_percent": status.error,
        "resnet_training_images_per_second": status.images_per_second,
        "resnet_training_seconds_left": status.seconds_left,
    }
    if status.rows:
        wait = status.rows[-1].get("data_wait_fraction")
        errors = [row["top1_error"] for row in status.rows if row.get("top1_error") is not None]
        found |= {"resnet_training_data_wait_fraction": wait} if wait is not None else {}
        found |= {"resnet_training_top1_error_percent": errors[-1]} if errors else {}
        replaced = sum(row.get("replaced_images") or 0 for row in status.rows)
        found["resnet_training_replaced_images_total"] = replaced
    return {name: float(value) for name, value in found.items() if value is not None and value == value}


def export_metrics(status: Status) -> None:
    """Set the gauges of a run. Within a process of a Ray cluster."""
    for name, value in readings(status).items():
        _gauge(name).set(value, tags={"run": status.run})


@cache
def _gauge(name: str) -> Any:
    from ray.util.metrics import Gauge

    return Gauge(name, description=GAUGES[name], tag_keys=("run",))
