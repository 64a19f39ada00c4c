"""A loss that is no number ends the training: which step, lr, images and checkpoint are named."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class NotFinite(RuntimeError):
    """The training loss is NaN or infinite: trying again gives the same."""


def no_bad_step(device: torch.device) -> Tensor:
    """A tensor on the device for the number of the first bad step: () int64, -1 so far."""
    return torch.full((), -1, dtype=torch.int64, device=device)


def see_(bad: Tensor, sums: Tensor, step: int | Tensor) -> None:
    """Note a step whose loss is not finite, unless one is noted already. Does not wait for the device.

    bad: of no_bad_step, changed in place; sums: of train_step.
    """
    bad.copy_(torch.where((bad < 0) & ~torch.isfinite(sums[0]), step, bad))


def require_finite(sums: Tensor, step: int, lr: float, ids: Sequence[object], last_checkpoint: str | None) -> None:
    """NotFinite if the loss of a step is not. sums: of train_step, its first is the loss; ids: of the step's images.

    last_checkpoint: the last good one. This waits for the device: ask once in many steps, with what see_ noted.
    """
    loss = float(sums[0])
    if math.isfinite(loss):
        return
    shown = ", ".join(map(str, ids[:8])) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    raise NotFinite(
        f"the training loss must be finite, got {loss} at step {step} with lr {lr:g}, images {shown} of the training "
        f"split; the last good checkpoint is {last_checkpoint or 'none: it was before the first'}"
    )
