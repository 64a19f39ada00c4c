"""Statuses that the tests of this folder share."""

from typing import Any

import pytest

from pipelines.progress.status import Status


@pytest.fixture(scope="session")
def status() -> Any:
    """status(run, step, **fields) -> a Status of a training of 100 steps."""

    def make(run: str, step: int, **fields: Any) -> Status:
        known: dict[str, Any] = {
            "phase": "training", "total": 100, "epoch": step / 10, "epochs": 10, "loss": 1.0, "error": 40.0,
            "images_per_second": 100.0, "seconds_left": 5.0,
        }  # fmt: skip
        return Status(**known | {"run": run, "step": step} | fields)

    return make
