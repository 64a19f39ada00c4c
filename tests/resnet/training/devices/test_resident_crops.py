"""Crops that the device makes are those of the host, bit for bit."""

import numpy as np
import pytest
import torch

from resnet.images.crops.padded_crops import draw_pad_crop, pad_crop_flip
from resnet.training.devices.resident_crops import ResidentCrops

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("pad", "border"), [(4, (0, 0, 0)), (2, (120, 7, 255)), (0, (0, 0, 0))])
def test_the_device_makes_the_crops_of_the_host(
    pad: int, border: tuple[int, int, int], turned: bool, device: str
) -> None:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    images.flags.writeable = False  # as a view of the object store
    labels, place = rng.integers(0, 5, 20), rng.integers(0, 20, 64)
    offsets, flips = draw_pad_crop(rng, 64, pad)
    turns = rng.integers(0, 4, 64) if turned else np.zeros(64, np.int64)
    expected = pad_crop_flip(images[place], offsets, flips, pad, np.array(border, np.uint8))
    expected = np.stack([np.rot90(image, quarters) for image, quarters in zip(expected, turns.tolist(), strict=True)])
    crops = ResidentCrops(images, labels, pad, np.array(border, np.uint8), torch.device(device))
    draws = torch.from_numpy(np.column_stack([place, offsets, flips, turns])).to(device)
    made, found = crops.batch(draws, turned)
    np.testing.assert_array_equal(made.cpu().numpy(), expected)
    np.testing.assert_array_equal(found.cpu().numpy(), labels[place])
