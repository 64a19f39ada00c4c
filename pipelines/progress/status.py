"""Progress of runs as a person watches it: rank 0 of each posts, the job that launched them shows it."""

from __future__ import annotations

import math
import os
import time
from typing import Any

from pydantic import Field

from resnet.frozen import Frozen

LINE = 3.0  # seconds between two lines where the output is no terminal


class Status(Frozen):
    """Progress of a run. step and total: optimiser steps; error: training error of the epoch so far, in percent.

    seconds_left: to the end of all; None: not known yet. process: of rank 0; another one after each restart of the
    workers. time: in seconds since 1970. machine: rank 0's. conditions: what the training runs on, as text by name.
    answers: requests to save that have been met. quality: a figure in the place of the error, as text. step_seconds: a
    step's; None: not known yet. data_wait: share of the epoch's time so far in which rank 0 waited for data. loader:
    figures of rank 0's loader by name.
    """

    run: str
    phase: str
    step: int
    total: int
    epoch: float
    epochs: float
    loss: float
    error: float
    images_per_second: float
    seconds_left: float | None
    step_seconds: float | None = None
    data_wait: float | None = None
    loader: dict[str, float] = Field(default_factory=dict)
    saved: str | None = None
    answers: int = 0
    quality: str | None = None
    trouble: str | None = None
    rows: tuple[dict[str, Any], ...] = ()
    conditions: dict[str, str] = Field(default_factory=dict)
    process: int = Field(default_factory=os.getpid)
    time: float = Field(default_factory=time.time)
    machine: dict[str, float] = Field(default_factory=lambda: machine())

    def line(self) -> str:
        """One line of text with bar and ETA."""
        done = self.step / max(1, self.total)
        bar = "━" * round(24 * done) + "╌" * (24 - round(24 * done))
        return (
            f"{self.run}  {bar} {done:4.0%}  epoch {self.epoch:.1f}/{self.epochs:g}  loss {_figure(self.loss, 3)}  "
            f"{self.quality or f'error {_figure(self.error, 2)} %'}  {self.images_per_second:,.0f} img/s  "
            f"{remaining(self.seconds_left)} ({self.phase})"
        )


def machine() -> dict[str, float]:
    """Load of this machine, under MLflow's names: percent since the last call, megabytes."""
    import psutil

    memory = psutil.virtual_memory()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_percentage": memory.percent,
        "system/system_memory_usage_megabytes": memory.used / 2**20,
    }


def _figure(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def remaining(seconds: float | None) -> str:
    """`1:02:03 left`; without a figure while nothing is known."""
    return "time left not known yet" if seconds is None else f"{clock(seconds)} left"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, e.g. 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"
