"""Statuses of a training by the clock of a rank: what a poster gets, and when."""

import time
from typing import Any

from pipelines.progress.run_clock import RunClock
from pipelines.progress.status import Status
from pipelines.progress.time_left import TimeLeft

FIGURES = {"run": "r", "total": 40, "epoch": 0.5, "epochs": 2.0, "loss": 1.0, "error": 50.0}


class Kept:
    """A poster that keeps what it gets."""

    def __init__(self) -> None:
        self.statuses: list[Status] = []

    def post(self, status: Status) -> None:
        self.statuses.append(status)


def clock(poster: Any, monkeypatch: Any = None) -> RunClock:
    return RunClock(poster, TimeLeft(40, 10, 20, 200, 100), 2, lambda: dict(FIGURES))


def test_a_training_is_told_from_its_first_step_to_its_test() -> None:
    kept = Kept()
    told = clock(kept)
    told.tick(1)
    assert kept.statuses[0].seconds_left is None, "nothing is known yet"
    for step in range(2, 21):
        time.sleep(0.01)
        told.tick(step)
    with told.beside(20, "evaluating", 100) as done:
        time.sleep(0.05)
        done(50)  # of this rank; the other has as many
    told.post(20, "evaluated")
    first, during, after = kept.statuses
    assert (first.phase, during.phase, after.phase) == ("training", "evaluating", "evaluated")
    assert first.step_seconds is None
    assert 0.01 <= (after.step_seconds or 0) < 0.1
    assert after.seconds_left is not None
    # 20 steps of 10 ms, an evaluation of 50 ms, a test of 300 images of 0.5 ms each
    assert 0.3 < after.seconds_left < 1.5
    assert 300 < after.images_per_second <= 1000


def test_a_long_phase_is_not_silent(monkeypatch: Any) -> None:
    monkeypatch.setattr("pipelines.progress.run_clock.POST_EVERY", 0.02)
    kept = Kept()
    told = clock(kept)
    with told.beside(40, "final test", 300) as done:
        for _ in range(3):
            time.sleep(0.03)
            done(25)
    assert [status.phase for status in kept.statuses] == ["final test", *(f"final test, {p}%" for p in (17, 33, 50))]


def test_other_ranks_say_nothing() -> None:
    told = clock(None)
    told.tick(1)
    with told.beside(1, "evaluating", 10) as done:
        done(5)
