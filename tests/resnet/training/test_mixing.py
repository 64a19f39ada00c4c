"""Mixing pairs of images: shares are right, pairs stay together however the batch is cut."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resnet.recipes.loss_settings import Loss
from resnet.training.mixing import Mix, draw_mix, mix


def test_mixup_blends_an_image_with_its_neighbour_by_hand() -> None:
    pixels, labels = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last), torch.tensor([7, 8, 9, 6])
    mixed, target = mix(pixels, labels, Mix(0.3, None))
    torch.testing.assert_close(mixed[0], 0.3 * pixels[0] + 0.7 * pixels[1])
    torch.testing.assert_close(mixed[3], 0.3 * pixels[3] + 0.7 * pixels[2])
    assert (target.labels.tolist(), target.others.tolist(), target.share) == ([7, 8, 9, 6], [8, 7, 6, 9], 0.3)
    assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_cutmix_takes_a_box_of_the_neighbour() -> None:
    pixels, labels = torch.randn(2, 3, 6, 6).contiguous(memory_format=torch.channels_last), torch.tensor([0, 1])
    mixed, _ = mix(pixels, labels, Mix(1 - 6 / 36, (1, 2, 2, 3)))
    inside = torch.zeros(6, 6, dtype=torch.bool)
    inside[1:3, 2:5] = True
    assert torch.equal(mixed[0], torch.where(inside, pixels[1], pixels[0]))
    assert mixed.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("drawn", [Mix(0.3, None), Mix(0.5, (0, 0, 3, 3))])
def test_even_parts_are_mixed_as_the_whole(drawn: Mix) -> None:
    pixels, labels = torch.randn(8, 3, 4, 4), torch.arange(8)
    whole, target = mix(pixels, labels, drawn)
    parts = [mix(p, y, drawn) for p, y in zip(pixels.split([2, 6]), labels.split([2, 6]), strict=True)]
    assert torch.equal(torch.cat([p for p, _ in parts]), whole)
    assert torch.equal(torch.cat([t.others for _, t in parts]), target.others)


def test_the_last_of_an_odd_number_stays_as_it_is() -> None:
    pixels = torch.randn(3, 3, 4, 4)
    mixed, target = mix(pixels, torch.arange(3), Mix(0.25, None))
    torch.testing.assert_close(mixed[2], pixels[2])
    assert target.others.tolist() == [1, 0, 2]


@given(st.integers(0, 10**6), st.floats(0.05, 5), st.integers(8, 64))
def test_a_box_lies_inside_and_has_its_share(seed: int, alpha: float, size: int) -> None:
    drawn = draw_mix(np.random.default_rng(seed), Loss(cutmix=alpha), size)
    assert drawn is not None
    assert drawn.box is not None
    top, left, height, width = drawn.box
    assert min(drawn.box) >= 0
    assert max(top + height, left + width) <= size
    assert drawn.share == 1 - height * width / size**2
    assert drawn == draw_mix(np.random.default_rng(seed), Loss(cutmix=alpha), size), "a pure function of the generator"


def test_shares_are_beta_and_both_ways_are_taken_equally_often() -> None:
    both = [draw_mix(np.random.default_rng((0, 0, step)), Loss(mixup=0.2, cutmix=1.0), 64) for step in range(2000)]
    blends = [d.share for d in both if d is not None and d.box is None]
    assert 900 < len(blends) < 1100
    alpha = 0.2
    assert np.mean(blends) == pytest.approx(0.5, abs=0.05)
    assert np.var(blends) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    assert draw_mix(np.random.default_rng(0), Loss(), 64) is None
