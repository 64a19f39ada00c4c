"""The schedule is a pure function of the step; the optimiser is the paper's."""

import itertools
import math

import pytest
import torch
from torch import nn

from resnet.recipes.named import recipe
from resnet.recipes.recipe_settings import Optim, Schedule
from resnet.training.lr_schedule import EpochErrors, lr_at, reductions
from resnet.training.optimizer import optimizer, parameter_groups


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


def test_all_parameters_decay_as_in_2015_or_only_matrices() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    (everything,) = parameter_groups(model, Optim())
    assert everything["weight_decay"] == 1e-4
    assert len(everything["params"]) == 5  # pyright: ignore[reportArgumentType]
    matrices, vectors = parameter_groups(model, Optim(decay_norm_and_bias=False))
    assert [p.ndim for p in matrices["params"]] == [4, 2]  # pyright: ignore[reportGeneralTypeIssues]
    assert vectors["weight_decay"] == 0
    assert [p.ndim for p in vectors["params"]] == [1, 1, 1]  # pyright: ignore[reportGeneralTypeIssues]


def test_lr_scales_with_the_batch_where_it_is_given_for_another() -> None:
    schedule = Schedule(kind="step", milestones=(0.5,), gamma=0.1, warmup=0.1)
    optim = Optim(lr=0.1, lr_batch_size=256, batch_size=1024)
    lr = [lr_at(step, 100, optim, schedule) for step in (0, 9, 10, 50)]
    assert lr == pytest.approx([0.04, 0.4, 0.4, 0.04])
    assert optimizer(nn.Linear(2, 2), optim).param_groups[0]["lr"] == pytest.approx(0.4)


def test_nesterov_looks_ahead_by_one_velocity() -> None:
    model, velocity = nn.Linear(3, 2, bias=False), 1.0
    before = model.weight.detach().clone()
    optim = optimizer(model, Optim(lr=0.5, momentum=0.9, weight_decay=0, nesterov=True))
    model.weight.sum().backward()
    optim.step()
    torch.testing.assert_close(model.weight.detach(), before - 0.5 * (1 + 0.9 * velocity))


def test_momentum_of_zero_and_none_give_the_same_first_step() -> None:
    torch.manual_seed(0)
    models = [nn.Linear(5, 3) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [optimizer(model, Optim(weight_decay=0.1)) for model in models]
    for parameter in models[1].parameters():  # as a CUDA graph needs it
        optimizers[1].state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    pixels = torch.randn(4, 5)
    for _ in range(3):
        for model, optim in zip(models, optimizers, strict=True):
            optim.zero_grad()
            model(pixels).square().sum().backward()
            optim.step()
    assert torch.equal(models[0].weight, models[1].weight)


def test_one_step_is_momentum_sgd_with_weight_decay_by_hand() -> None:
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    optim = optimizer(model, Optim(lr=0.5, momentum=0.9, weight_decay=0.1))
    for _ in range(2):
        optim.zero_grad()
        (model.weight.sum() + model.bias.sum()).backward()
        optim.step()
    v1 = 1 + 0.1 * before
    w1 = before - 0.5 * v1
    expected = w1 - 0.5 * (0.9 * v1 + 1 + 0.1 * w1)
    torch.testing.assert_close(model.weight.detach(), expected)
