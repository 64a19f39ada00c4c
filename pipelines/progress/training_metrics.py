"""A training's figures for Prometheus, by the exporter that every Ray node has (its metrics port)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from pipelines.progress.status import Status

# Ray puts `ray_` before each name. Each is a gauge; GAUGES have the label `run`, SWEEP_GAUGES their own.
GAUGES = {
    "resnet_training_step": "Optimiser steps done",
    "resnet_training_steps_total": "Optimiser steps of the whole training",
    "resnet_training_loss": "Loss over the epoch so far",
    "resnet_training_error_percent": "Training error over the epoch so far",
    "resnet_training_images_per_second": "Training images a second over all ranks",
    "resnet_training_step_seconds": "Seconds of an optimiser step",
    "resnet_training_seconds_left": "Seconds to the end at the present speed",
    "resnet_training_data_wait_fraction": "Share of the epoch's time so far in which rank 0 waited for data",
    "resnet_training_top1_error_percent": "Validation error of the last epoch that was evaluated",
    "resnet_training_replaced_images_total": "Images that could not be decoded and were replaced, over all epochs",
    "resnet_training_saved_step": "Step of the newest checkpoint that these workers have written",
    "resnet_training_loader_ready_batches": "Decoded batches that waited when rank 0 asked for one",
    "resnet_training_loader_decode_seconds": "Seconds of a thread or task that an image of rank 0 took to decode",
}
SWEEP_GAUGES = {
    "resnet_sweep_trials": ("Trials of a sweep by how they stand", ("sweep", "state")),
    "resnet_sweep_best_top1_error_percent": ("Lowest validation error of a trial so far", ("sweep",)),
}


def readings(status: Status) -> dict[str, float]:
    """The value of each gauge that is known from a status: a loss of no step yet is NaN."""
    found = {
        "resnet_training_step": status.step,
        "resnet_training_steps_total": status.total,
        "resnet_training_loss": status.loss,
        "resnet_training_error_percent": status.error,
        "resnet_training_images_per_second": status.images_per_second,
        "resnet_training_step_seconds": status.step_seconds,
        "resnet_training_seconds_left": status.seconds_left,
        "resnet_training_data_wait_fraction": status.data_wait,
        "resnet_training_saved_step": int(status.saved.rpartition("-")[2]) if status.saved else None,
    }
    if status.rows:
        errors = [row["top1_error"] for row in status.rows if row.get("top1_error") is not None]
        found |= {"resnet_training_top1_error_percent": errors[-1]} if errors else {}
        replaced = sum(row.get("replaced_images") or 0 for row in status.rows)
        found["resnet_training_replaced_images_total"] = replaced
    found |= {f"resnet_training_loader_{name}": value for name, value in status.loader.items()}
    return {name: float(value) for name, value in found.items() if value is not None and value == value}


def export_metrics(status: Status) -> None:
    """Set the gauges of a run. Within a process of a Ray cluster."""
    for name, value in readings(status).items():
        _gauge(name, GAUGES[name], ("run",)).set(value, tags={"run": status.run})


def export_sweep(sweep: str, counts: Iterable[tuple[str, int]], best: float | None) -> None:
    """Set the gauges of a sweep: trials by how they stand, and the lowest error so far. In its driver."""
    trials, errors = (_gauge(name, *told) for name, told in SWEEP_GAUGES.items())
    for state, count in counts:
        trials.set(count, tags={"sweep": sweep, "state": state})
    if best is not None:
        errors.set(best, tags={"sweep": sweep})


@cache
def _gauge(name: str, description: str, labels: tuple[str, ...]) -> Any:
    from ray.util.metrics import Gauge

    return Gauge(name, description=description, tag_keys=labels)
