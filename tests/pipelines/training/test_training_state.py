"""The state of a training adds up what its steps were, over all starts."""

import time
from typing import Any

import pytest
import torch

from pipelines.training.training_state import TrainingState, all_reduce
from resnet.image_class import ImageClass
from resnet.training.checkpoint import Progress

pytestmark = pytest.mark.usefixtures("one_rank")
CPU = torch.device("cpu")


def sums(loss: float, wrong: float = 3.0, count: float = 8.0) -> torch.Tensor:
    return torch.tensor([loss, wrong, count], dtype=torch.float64)


def test_an_epoch_is_the_sum_of_its_steps_and_the_next_begins_at_nothing() -> None:
    state = TrainingState(CPU, None, 0)
    for state.step in range(3):
        state.add(sums(state.step + 1.0))
    state.replaced = 2
    state.cpu_seconds = 5.0
    ended = state.close()
    assert (ended.sums, ended.replaced, ended.cpu_seconds) == ([6.0, 9.0, 24.0], 2.0, 5.0)
    again = state.close()
    assert (again.sums, again.replaced, again.seconds, again.wait, again.cpu_seconds) == ([0, 0, 0], 0, 0, 0, 0)
    assert state.bad.item() < 0, "every loss was finite"


def test_the_first_step_whose_loss_is_no_number_is_kept() -> None:
    state = TrainingState(CPU, None, 0)
    for state.step, loss in ((5, 1.0), (6, float("nan")), (7, float("inf"))):
        state.add(sums(loss))
    assert state.bad.item() == 6


def test_time_counts_between_start_and_mark_and_waiting_is_part_of_it() -> None:
    state = TrainingState(CPU, None, 0)
    time.sleep(0.05)
    state.start()
    with state.waiting():
        time.sleep(0.02)
    state.mark()
    time.sleep(0.05)
    state.start()
    state.mark()
    assert 0.02 <= state.wait <= state.seconds < 0.07, "what was before the start and between them is no training"


def test_the_share_of_waits_is_known_inside_an_epoch() -> None:
    state = TrainingState(CPU, None, 0)
    assert state.wait_fraction() is None
    state.start()
    with state.waiting():
        time.sleep(0.03)
    time.sleep(0.03)
    state.add(sums(1.0))
    assert 0.2 < (state.wait_fraction() or 0) < 0.6


def saved(**fields: Any) -> Progress:
    classes = (ImageClass(id=0, wnid="a", name="a"),)
    return Progress(step=7, total_steps=9, examples=4, classes=classes, **fields)


def test_a_training_goes_on_with_the_sums_of_all_ranks_on_one() -> None:
    progress = saved(sums=(1.5, 2.0, 16.0), seconds=3.0, wait=1.0, cpu_seconds=4.0)
    first, other = (TrainingState(CPU, progress, rank) for rank in (0, 1))
    assert (first.step, first.seconds, first.wait, first.cpu_seconds) == (7, 3.0, 1.0, 4.0)
    assert first.sums.tolist() == [1.5, 2.0, 16.0]
    assert (other.sums.tolist(), other.cpu_seconds) == ([0, 0, 0], 0.0)


def test_sums_over_one_rank_are_its_own_and_stay_as_they_are() -> None:
    mine = sums(1.0)
    assert all_reduce(mine) == [1.0, 3.0, 8.0]
    assert mine.tolist() == [1.0, 3.0, 8.0]
