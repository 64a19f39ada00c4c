"""Steps return sums over examples, so that any split into batches gives the same totals."""

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.nn import functional as F

from resnet import build
from resnet.recipes.recipe_settings import Optim
from resnet.training.mixing import Mixed
from resnet.training.optimizer import optimizer
from resnet.training.step import (
    Normalize,
    accumulate,
    autocast,
    choose_algorithms,
    error_sums,
    eval_step,
    loss_and_errors,
    native_precision,
    require_device,
    scaler,
    to_device,
    train_step,
    update,
)

CPU = torch.device("cpu")
MATMUL: Any = torch.backends.cuda.matmul
CUDNN: Any = torch.backends.cudnn


def test_normalize_subtracts_the_mean_and_keeps_channels_last() -> None:
    images = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8)
    mean, std = torch.rand(3, 4, 4) * 255, torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1)
    pixels = Normalize(mean, std)(images, shift=torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]))
    assert pixels.shape == (2, 3, 4, 4)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    value = (images[0, 1, 2, 1].item() + 2.0 - mean[1, 1, 2].item()) / 2
    assert pixels[0, 1, 1, 2].item() == value or abs(pixels[0, 1, 1, 2].item() - value) < 1e-4


def test_score_counts_by_hand() -> None:
    logits = torch.tensor([[9.0, 8, 7, 6, 5, 4], [9.0, 8, 7, 6, 5, 4], [9.0, 8, 7, 6, 5, 4]])
    loss, top1, top5, count = error_sums(logits, torch.tensor([0, 3, 5])).tolist()
    assert (top1, top5, count) == (2, 1, 3)
    reference = nn.functional.cross_entropy(logits, torch.tensor([0, 3, 5]), reduction="sum")
    assert abs(loss - reference.item()) < 1e-5


def test_evaluation_sums_do_not_depend_on_the_batches() -> None:
    torch.manual_seed(0)
    model = build("cifar10-resnet8", 7).double().eval()
    pixels, labels = torch.randn(23, 3, 32, 32, dtype=torch.float64), torch.randint(0, 7, (23,))
    whole = eval_step(model, pixels, labels)
    for size in (1, 5, 22):
        parts = [eval_step(model, p, y) for p, y in zip(pixels.split(size), labels.split(size), strict=True)]
        torch.testing.assert_close(torch.stack(parts).sum(0), whole, rtol=1e-6, atol=1e-6)


def test_training_steps_lower_the_loss_in_both_precisions() -> None:
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        model = build("cifar10-resnet8", 4)
        pixels, labels = torch.randn(16, 3, 32, 32), torch.randint(0, 4, (16,))
        optim = optimizer(model, Optim(lr=0.05))
        sums = [train_step(model, optim, pixels, labels, precision) for _ in range(15)]
        assert sums[-1][0] < 0.5 * sums[0][0], precision
        assert sums[0][2] == 16


def test_native_precision_is_one_that_steps_know() -> None:
    assert native_precision(torch.device("cpu")) in ("float32", "bfloat16")


def test_label_smoothing_is_cross_entropy_with_a_softened_target() -> None:
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    soft = 0.9 * F.one_hot(labels, 4).float() + 0.1 / 4
    expected = -(soft * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss_and_errors(logits, labels, 0.1)[0], expected)


def test_mixed_labels_weigh_loss_and_errors_by_their_shares() -> None:
    logits, first, second = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([1, 0, 3, 2, 0, 1])
    target = 0.3 * F.one_hot(first, 4).float() + 0.7 * F.one_hot(second, 4).float()
    loss, wrong = loss_and_errors(logits, Mixed(first, second, 0.3))
    torch.testing.assert_close(loss, F.cross_entropy(logits, target))
    assert wrong.item() == pytest.approx((1 - target[torch.arange(6), logits.argmax(1)]).sum().item())


def frozen_norms(model: nn.Module) -> nn.Module:
    """Batch norm with its running statistics: then the parts of a batch do not see each other."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


@pytest.mark.parametrize("parts", [(7, 1), (2, 2, 4), (3, 5)])
def test_accumulated_parts_give_the_step_of_the_undivided_batch(parts: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    whole = frozen_norms(build("cifar10-resnet8", 4).double())
    split = copy.deepcopy(whole)
    pixels, labels = torch.randn(8, 3, 16, 16, dtype=torch.float64), torch.randint(0, 4, (8,))
    optimizers = [optimizer(model, Optim(lr=0.1)) for model in (whole, split)]
    expected = train_step(whole, optimizers[0], pixels, labels, label_smoothing=0.1)
    sums = torch.zeros(3, dtype=torch.float64)
    for x, y in zip(pixels.split(parts), labels.split(parts), strict=True):
        sums += accumulate(split, x, y, len(y) / 8, label_smoothing=0.1)
    update(optimizers[1])
    torch.testing.assert_close(sums, expected, rtol=1e-6, atol=1e-6)
    for a, b in zip(whole.parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert all(parameter.grad is None for parameter in split.parameters())


def test_float16_skips_a_step_whose_gradients_overflow_and_lowers_the_scale() -> None:
    torch.manual_seed(0)
    layer, scale = nn.Linear(12, 3), scaler(torch.device("cpu"), "float16")
    model = nn.Sequential(nn.Flatten(), layer)
    optim = optimizer(model, Optim(lr=0.1))
    before, pixels, labels = layer.weight.detach().clone(), torch.randn(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    train_step(model, optim, pixels * 1e30, labels, "float16", scaler=scale)
    assert torch.equal(layer.weight, before)
    assert scale.get_scale() == 2.0**15
    train_step(model, optim, pixels, labels, "float16", scaler=scale)
    assert not torch.equal(layer.weight, before)


def test_without_float16_there_is_no_scaling() -> None:
    assert not scaler(torch.device("cpu"), "bfloat16").is_enabled()


@pytest.mark.parametrize("channels_last", [True, False])
def test_memory_format_is_an_option_that_changes_no_number(channels_last: bool) -> None:
    torch.manual_seed(0)
    plain = build("cifar10-resnet8", 4).eval()
    model = to_device(copy.deepcopy(plain), torch.device("cpu"), channels_last)
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    pixels = Normalize(torch.full((3, 1, 1), 120.0), torch.full((3, 1, 1), 60.0), channels_last)(images)
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    assert model.get_parameter("conv1.weight").is_contiguous(memory_format=wanted)
    assert pixels.is_contiguous(memory_format=wanted)
    torch.testing.assert_close(model(pixels), plain((images.permute(0, 3, 1, 2).float() - 120) / 60))


@pytest.mark.parametrize("mixed", [False, True])
def test_weighted_parts_of_a_batch_add_up_to_the_whole(mixed: bool) -> None:
    """However the batch is cut, and so whatever the number of workers."""
    torch.manual_seed(0)
    pixels, labels, weights = torch.randn(8, 6), torch.tensor([0, 0, 0, 0, 0, 1, 1, 2]), torch.tensor([0.5, 1.5, 3.0])
    parts = [(0, 8)], [(0, 2), (2, 8)]
    gradients, model = [], nn.Linear(6, 3)
    for cut in parts:
        model.zero_grad(set_to_none=True)
        nn.init.ones_(model.weight)
        nn.init.zeros_(model.bias)
        for low, high in cut:
            y = labels[low:high]
            target = Mixed(y, y.flip(0) if high - low == 8 else labels.flip(0)[low:high], 0.3) if mixed else y
            accumulate(model, pixels[low:high], target, (high - low) / 8, label_smoothing=0.1, class_weights=weights)
        assert model.weight.grad is not None
        gradients.append(model.weight.grad)
    torch.testing.assert_close(*gradients)
    model.zero_grad(set_to_none=True)
    accumulate(model, pixels, labels, class_weights=torch.ones(3), label_smoothing=0.1)
    with_ones = model.weight.grad
    model.zero_grad(set_to_none=True)
    accumulate(model, pixels, labels, label_smoothing=0.1)
    torch.testing.assert_close(with_ones, model.weight.grad)


@pytest.fixture
def _backends() -> Iterator[None]:
    """Settings of this process that a test changes are put back."""
    cuda, cudnn = MATMUL, CUDNN
    before = cuda.allow_tf32, cudnn.allow_tf32
    yield
    cuda.allow_tf32, cudnn.allow_tf32 = before
    choose_algorithms(False)
    torch.backends.cudnn.benchmark = False


@pytest.mark.usefixtures("_backends")
@pytest.mark.parametrize(("precision", "rounded"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_float32_on_a_gpu_is_float32_in_convolutions_too(precision: str, rounded: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that there is no GPU here
        autocast(torch.device("cuda"), precision)
    is_rounded = [kind.fp32_precision == "tf32" for kind in (CUDNN.conv, MATMUL)]
    assert is_rounded == [rounded, rounded], "it holds for the backward pass, which comes later"
    assert (CUDNN.allow_tf32, MATMUL.allow_tf32) == (rounded, rounded)


def test_a_cpu_computes_no_tf32_and_a_gpu_must_be_there() -> None:
    require_device(CPU, "float32")
    with pytest.raises(ValueError, match=r"precision must be one that a CPU computes in, .* got tf32"):
        require_device(CPU, "tf32")
    with pytest.raises(ValueError, match="gpu must be off where torch sees no GPU"):
        require_device(torch.device("cuda"), "tf32")


@pytest.mark.usefixtures("_backends")
def test_algorithms_are_the_same_in_each_run_or_the_quickest() -> None:
    choose_algorithms(True)
    assert torch.are_deterministic_algorithms_enabled()
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
    choose_algorithms(False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (False, True)


def test_a_step_that_overflows_is_left_out_and_said() -> None:
    weight = nn.Parameter(torch.ones(2))
    sgd, scale = torch.optim.SGD([weight], lr=0.5), GradScaler("cpu", init_scale=2.0**10)
    scale.scale(weight.sum() * torch.inf).backward()
    assert not update(sgd, scale)
    assert (weight.tolist(), weight.grad, scale.get_scale()) == ([1.0, 1.0], None, 2.0**9)
    scale.scale(weight.sum()).backward()
    assert update(sgd, scale)
    assert weight.tolist() == [0.5, 0.5]
    weight.sum().backward()
    assert update(sgd), "without a scale every step is made"
