"""Images and labels mixed in pairs, on the device: mixup (arXiv 1710.09412) and cutmix (arXiv 1905.04899).

A batch takes one share for all its pairs, drawn from (seed, epoch, step), and an image is mixed with its neighbour: 0
with 1, 2 with 3, and so on. The order of examples is random already, and neighbours stay together when a batch is cut
into even parts: what comes out does not depend on the number of workers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from resnet.recipes.loss_settings import Loss


class Mixed(NamedTuple):
    """Labels in pairs: `labels` (N,) weigh `share`, `others` (N,) the rest."""

    labels: Tensor
    others: Tensor
    share: float


class Mix(NamedTuple):
    """The random draws of a step. share: of an image itself; box: (top, left, height, width) that comes from the other,
    None with mixup.
    """

    share: float
    box: tuple[int, int, int, int] | None


def draw_mix(rng: np.random.Generator, loss: Loss, size: int) -> Mix | None:
    """Draw how the images of a step, size x size, are mixed; None: not at all."""
    if loss.mixup is None and loss.cutmix is None:
        return None
    cut = loss.mixup is None or (loss.cutmix is not None and rng.random() < 0.5)
    alpha = loss.cutmix if cut else loss.mixup
    assert alpha is not None
    share = float(rng.beta(alpha, alpha))
    if not cut:
        return Mix(share, None)
    length = round(size * (1 - share) ** 0.5)  # the box has the other image's share of the area, before it is clipped
    middle = rng.integers(0, size, 2)
    low, high = np.clip(middle - length // 2, 0, size), np.clip(middle - length // 2 + length, 0, size)
    height, width = (int(side) for side in high - low)
    return Mix(1 - height * width / size**2, (int(low[0]), int(low[1]), height, width))


def mix(pixels: Tensor, labels: Tensor, drawn: Mix) -> tuple[Tensor, Mixed]:
    """Each image mixed with its neighbour; of an odd number the last stays as it is. pixels: (N, 3, S, S)."""
    n = len(labels)
    other = torch.arange(n, device=labels.device) ^ 1
    other = torch.where(other < n, other, n - 1)
    if drawn.box is None:
        mixed = torch.lerp(pixels[other], pixels, drawn.share)
    else:
        top, left, height, width = drawn.box
        mixed = pixels.clone()
        part = (..., slice(top, top + height), slice(left, left + width))
        mixed[part] = pixels[other][part]
    return mixed, Mixed(labels, labels[other], drawn.share)
