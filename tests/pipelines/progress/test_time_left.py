"""The estimate against trainings whose parts take known times."""

import numpy as np
import pytest

from pipelines.progress.time_left import TimeLeft


def estimates(pace: list[float], image: float, end: float, known_end: float) -> list[tuple[float, float]]:
    """(estimate, truth) after each step of a training of 120 steps in 6 epochs, tested after each."""
    left = TimeLeft(total=120, batch=10, every=20, train=200, val=100, statistics=0, end=known_end)
    events: list[tuple[int, float, bool]] = []
    for step, seconds in enumerate(pace, 1):
        events.append((step, seconds, False))
        if step % 20 == 0:
            events.append((step, 100 * image, True))
    total = sum(seconds for _, seconds, _ in events) + 300 * image + end
    passed, found = 0.0, []
    for step, seconds, is_evaluation in events:
        passed += seconds
        if is_evaluation:
            left.evaluated(100, seconds)
        else:
            left.trained(1, seconds)
        estimate = left.seconds(step)
        assert estimate is not None
        if step >= 12 and (step % 20 or is_evaluation):
            found.append((estimate, total - passed))
    return found


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_within_a_factor_of_one_and_a_half_from_a_tenth_on(spread: float) -> None:
    """spread: of the durations of single steps, log-normal; the end takes twice what is known of it."""
    rng = np.random.default_rng(0)
    pace = (0.5 * np.exp(spread * rng.normal(size=120))).tolist()
    for estimate, truth in estimates(pace, image=0.01, end=8.0, known_end=6.0):
        assert truth / 1.5 < estimate < 1.5 * truth


def test_a_machine_that_slows_down_is_noticed() -> None:
    pace = [0.2] * 40 + [0.8] * 80
    found = estimates(pace, image=0.001, end=0.0, known_end=0.0)
    for estimate, truth in found[-30:]:
        assert truth / 1.5 < estimate < 1.5 * truth


def test_nothing_is_said_before_a_step() -> None:
    left = TimeLeft(total=10, batch=1, every=5, train=10, val=1)
    assert left.seconds(0) is None
    assert left.images_per_second == 0
    left.trained(1, 2.0)
    assert left.seconds(10, is_testing=True) == 0
    assert left.images_per_second == 0.5
