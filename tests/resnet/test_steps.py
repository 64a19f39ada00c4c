"""Steps return sums over examples, so that any split into batches gives the same totals."""

import torch
from torch import nn

from resnet import build
from resnet.optim import optimizer
from resnet.recipe import Optim
from resnet.steps import Normalize, eval_step, native_precision, score, train_step


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
    loss, top1, top5, count = score(logits, torch.tensor([0, 3, 5])).tolist()
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
