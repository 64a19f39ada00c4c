"""Steps and processor time of the scaling benchmark, counted by hand."""

import json
from pathlib import Path

import pytest

from benchmarks.training import scaling


def step(epoch: int, began: float, asleep: float = 0.25, met: float = 0.01) -> tuple[float, ...]:
    return epoch, began, began + asleep, began + asleep + met


def test_steps_are_paced_inside_epochs_without_their_first_ones() -> None:
    """0.3 s from step to step, and 2 s between the two epochs; the first three intervals of each are slow."""
    starts = [0, 1, 2, 3, *(3 + 0.3 * n for n in range(1, 11))]
    steps = [step(0, at) for at in starts] + [step(1, starts[-1] + 2 + 0.26 + at) for at in starts]
    found = scaling.paces(steps, 0.25)
    assert found["steps_per_second"] == pytest.approx(1 / 0.3, abs=1e-4)
    assert found["of_asleep"] == pytest.approx(0.25 / 0.3, abs=1e-4)
    assert (found["oversleep_ms"], found["meeting_ms"], found["loop_ms"]) == (0.0, 10.0, 40.0)
    assert found["epoch_end_s"] == 2.0
    assert found["with_epoch_ends"] == pytest.approx(22 / (steps[-1][3] - steps[5][3]), abs=1e-4)


def test_processor_time_is_counted_between_the_looks_inside_the_steps(tmp_path: Path) -> None:
    looks = [[t, {"gcs": 0.01 * t, "workers": 0.5 * t}, 1.5 * t, 20.0 - t] for t in (0.0, 2.0, 4.0, 6.0, 8.0)]
    (tmp_path / "looks").write_text("".join(f"{json.dumps(each)}\n" for each in looks))
    found = scaling.loads(tmp_path / "looks", [1.0 + 0.5 * n for n in range(13)], workers=4)  # 1 s to 7 s, two a second
    assert found["cpu_ms_a_worker_and_step"] == {"gcs": 1.25, "workers": 62.5}
    assert found["cpu_percent_of_a_core"] == {"gcs": 1.0, "workers": 50.0}
    assert (found["busy_cores"], found["memory_gib"], found["counted_s"]) == (1.5, 8.0, 4.0)
