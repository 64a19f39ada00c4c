import numpy as np
import pytest
import torch
from torch.nn import functional as F

from resnet.dense.dense_recipe import SegmentationRecipe
from resnet.dense.segmenters import build_segmenter, class_masks, segmentation_loss
from resnet.dense.targets import IGNORED

MEAN, STD = torch.full((3,), 120.0), torch.full((3,), 60.0)


def test_logits_have_the_image_s_size_and_the_second_head_goes_with_the_recipe():
    images = torch.randint(0, 256, (2, 48, 64, 3), dtype=torch.uint8)
    for auxiliary, names in ((0.5, {"out", "aux"}), (0.0, {"out"})):
        recipe = SegmentationRecipe(network="imagenet-resnet18", auxiliary=auxiliary)
        found = build_segmenter(recipe, 3, MEAN, STD)(images)
        assert {name: tuple(logits.shape) for name, logits in found.items()} == dict.fromkeys(names, (2, 3, 48, 64))


def test_the_loss_leaves_ignored_pixels_out():
    logits = {"out": torch.randn(1, 2, 3, 3), "aux": torch.randn(1, 2, 3, 3)}
    masks = torch.tensor([[[0, 1, IGNORED], [1, 1, 0], [IGNORED, 0, 0]]])
    counts = masks[0] != IGNORED
    wanted = [F.cross_entropy(each[0][:, counts].T, masks[0][counts]) for each in logits.values()]
    assert segmentation_loss(logits, masks, 0.4) == pytest.approx(float(wanted[0] + 0.4 * wanted[1]))


class Known(torch.nn.Module):
    """Logits that say class 1 on the right half."""

    def forward(self, images):
        logits = torch.zeros(1, 2, *images.shape[1:3])
        logits[:, 1, :, images.shape[2] // 2 :] = 4
        logits[:, 0] = 2
        return {"out": logits}


def test_masks_have_the_size_that_is_asked_for():
    found = class_masks(Known(), np.zeros((8, 8, 3), np.uint8), 16, 32, torch.device("cpu"))
    assert (found.shape, found.dtype) == ((16, 32), np.uint8)
    assert (found[:, :14] == 0).all()
    assert (found[:, 18:] == 1).all()
