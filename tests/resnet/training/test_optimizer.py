"""The schedule is a pure function of the step; the optimiser is the paper's."""

import pytest
import torch
from torch import nn

from resnet.recipes.recipe_settings import Optim, Schedule
from resnet.training.lr_schedule import lr_at
from resnet.training.optimizer import group_lrs, optimizer, parameter_groups, set_lr


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


def test_lr_as_a_number_in_float32_and_as_a_tensor_gives_the_same_bits() -> None:
    """The kernel of CPUs rounds lr itself, so that rounding it before changes nothing; that of CUDA would not."""
    torch.manual_seed(0)
    models = [nn.Linear(7, 5) for _ in range(3)]
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    optimizers = [optimizer(model, Optim(weight_decay=1e-4)) for model in models]
    on_the_device, pixels = torch.zeros(()), torch.randn(4, 7)
    for lr in (0.1, 0.01 / 3, 0.3):
        optimizers[0].param_groups[0]["lr"] = lr
        set_lr(optimizers[1], lr)
        optimizers[2].param_groups[0]["lr"] = on_the_device.fill_(lr)
        for model, optim in zip(models, optimizers, strict=True):
            optim.zero_grad()
            model(pixels).square().sum().backward()
            optim.step()
        assert all(torch.equal(models[0].weight, model.weight) for model in models[1:])
        assert all(torch.equal(models[0].bias, model.bias) for model in models[1:])
    assert optimizers[1].param_groups[0]["lr"] == on_the_device.item() != 0.3


def test_each_group_has_its_own_lr() -> None:
    model = nn.ModuleDict({"conv1": nn.Linear(2, 2), "fc": nn.Linear(2, 2)})
    assert group_lrs(optimizer(model, Optim(), head_lr=10), 0.25) == [0.25, 2.5]


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
