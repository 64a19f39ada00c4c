"""The first loss that is no number is kept on the device, and named."""

import math

import pytest
import torch

from resnet.training.finite_loss import NotFinite, no_bad_step, require_finite, see_


def test_the_first_bad_step_is_kept() -> None:
    bad = no_bad_step(torch.device("cpu"))
    for step, loss in enumerate([1.0, 2.0, math.nan, 3.0, math.inf]):
        see_(bad, torch.tensor([loss, 0.0, 4.0]), step)
    assert bad.item() == 2


def test_the_error_names_step_lr_images_and_checkpoint() -> None:
    require_finite(torch.tensor([1.0, 0.0, 4.0]), 7, 0.1, [1, 2], None)
    with pytest.raises(
        NotFinite, match=r"got nan at step 7 with lr 0.1, images 0, 1, .* 7 and 2 more .* is runs/step-5"
    ):
        require_finite(torch.tensor([math.nan, 0.0, 4.0]), 7, 0.1, range(10), "runs/step-5")
    with pytest.raises(NotFinite, match=r"got inf .* is none"):
        require_finite(torch.tensor([math.inf]), 0, 0.1, ["a.png"], None)
