"""The learning rate is a pure function of the step and of the errors so far."""

import itertools
import math

import pytest

from resnet.recipes.named import recipe
from resnet.recipes.recipe_settings import Optim, Schedule
from resnet.training.lr_schedule import EpochErrors, lr_at, reductions


def test_the_cifar10_schedule_divides_by_ten_at_32k_and_48k() -> None:
    r = recipe("cifar10-resnet20")
    lr = [lr_at(step, 64_000, r.optim, r.schedule) for step in (0, 31_999, 32_000, 47_999, 48_000, 63_999)]
    assert lr == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_110_layers_start_with_a_hundredth_until_the_error_is_below_80() -> None:
    r = recipe("cifar10-resnet110")
    slow, fast = EpochErrors(390, 85.0, 85.0), EpochErrors(780, 79.0, 80.0)
    assert lr_at(0, 64_000, r.optim, r.schedule) == 0.01
    assert lr_at(390, 64_000, r.optim, r.schedule, [slow]) == 0.01
    assert lr_at(779, 64_000, r.optim, r.schedule, [slow, fast]) == 0.01, "an epoch counts when it is over"
    assert lr_at(780, 64_000, r.optim, r.schedule, [slow, fast]) == 0.1


def test_warmup_rises_linearly_and_cosine_ends_at_zero() -> None:
    schedule = Schedule(kind="cosine", warmup=0.1)
    lr = [lr_at(step, 100, Optim(lr=1.0), schedule) for step in range(100)]
    assert lr[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert lr[10] == pytest.approx(1.0)
    assert lr[55] == pytest.approx(0.5)
    assert lr[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert all(a > b for a, b in itertools.pairwise(lr[10:]))


def test_plateau_reduces_after_patience_epochs_without_a_lower_error() -> None:
    assert reductions([5, 4, 3, 3, 3], patience=2) == 1
    assert reductions([5, 4, 3, 3, 2, 2], patience=2) == 0
    assert reductions([3, 3, 3, 3, 3], patience=2) == 2
    schedule = Schedule(kind="plateau", gamma=0.1, patience=2)
    history = [EpochErrors(10 * (i + 1), 0.0, error) for i, error in enumerate([3.0, 3.0, 3.0])]
    assert lr_at(29, 100, Optim(lr=1.0), schedule, history) == 1.0
    assert lr_at(30, 100, Optim(lr=1.0), schedule, history) == pytest.approx(0.1)
