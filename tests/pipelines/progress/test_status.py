"""A status travels as JSON, and is a line for people."""

import os
import time
from typing import Any

import pytest

from pipelines.progress.status import Status, clock, machine


def status(**fields: Any) -> Status:
    known: dict[str, Any] = {
        "run": "cifar10-resnet20-A.s0", "phase": "training", "step": 250, "total": 1000, "epoch": 2.5, "epochs": 10,
        "loss": 1.23456, "error": 40.0, "images_per_second": 1234.5, "seconds_left": 3723.4,
    }  # fmt: skip
    return Status(**known | fields)


def test_a_status_survives_json_and_says_who_posted_it_when() -> None:
    before = time.time()
    found = status(rows=({"step": 100, "top1_error": 50.0},), conditions={"precision": "bfloat16"}, loss=float("nan"))
    again = Status.model_validate_json(found.model_dump_json())
    assert again.model_dump(exclude={"loss"}) == found.model_dump(exclude={"loss"})
    assert again.loss != again.loss, "a loss that is no number is told as such"
    assert found.process == os.getpid()
    assert before <= found.time <= time.time()
    assert found.machine.keys() == machine().keys()


def test_a_line_has_a_bar_the_figures_and_the_time_that_is_left() -> None:
    line = status().line()
    assert line == (
        "cifar10-resnet20-A.s0  ━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌  25%  epoch 2.5/10  loss 1.235  error 40.00 %  1,234 img/s  "
        "1:02:03 left (training)"
    )
    assert status(step=0, total=0).line().count("╌") == 24, "before anything is known"
    assert "━" * 24 in status(step=1000).line()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00:00"), (59.6, "0:01:00"), (3599.4, "0:59:59"), (3723, "1:02:03"), (360_000, "100:00:00")],
)
def test_times_are_hours_minutes_and_seconds(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_the_machines_load_is_in_percent_and_megabytes() -> None:
    found = machine()
    assert 0 <= found["system/cpu_utilization_percentage"] <= 100
    assert 0 < found["system/system_memory_usage_percentage"] <= 100
    used = found["system/system_memory_usage_megabytes"] * 2**20
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < used < total
