"""torchvision's detectors on a backbone of ours, with its pyramid (Lin et al. 2017)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7

from resnet.dense.dense_recipe import DetectionRecipe
from resnet.dense.targets import Boxes
from resnet.dense.trained_backbone import backbone
from resnet.networks.backbone import Backbone
from resnet.networks.resnet import ResNet

REGIONS = 512  # of an image that the second stage trains on, where the recipe does not say
RATIOS = (0.5, 1.0, 2.0)


class Pyramid(nn.Module):
    """A backbone and its feature pyramid. The names of the weights are those of torchvision's BackboneWithFPN."""

    def __init__(self, body: Backbone, extra: Any, out_channels: int) -> None:
        super().__init__()
        self.body, self.out_channels = body, out_channels
        self.fpn = FeaturePyramidNetwork(list(body.channels), out_channels, extra)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """Maps of equal width, each half the size of the one before."""
        return self.fpn(self.body(x))


def build_detector(
    recipe: DetectionRecipe, num_classes: int, mean: Tensor, std: Tensor, net: ResNet | None = None
) -> nn.Module:
    """A detector: a list of images (3, H, W) in [0, 1] -> losses by name, or boxes, labels and scores.

    num_classes: without the background, which is torchvision's label 0; mean, std: (3,) of the pixels in [0, 255];
    net: the backbone's network, taken over; None: one with random weights, of torch's global generator.
    """
    two_stages = recipe.head == "faster-rcnn"
    levels = ("C2", "C3", "C4", "C5") if two_stages else ("C3", "C4", "C5")
    body = backbone(
        net or recipe.network, {name: str(i) for i, name in enumerate(levels)}, frozen_norm=recipe.norm == "frozen"
    )
    body.train_last(recipe.trained_stages)
    extra = LastLevelMaxPool() if two_stages else LastLevelP6P7(recipe.width, recipe.width)
    sizes = tuple(_anchor_sizes(recipe, level) for level in range(5))
    anchors = AnchorGenerator(sizes, (RATIOS,) * 5)
    images: dict[str, Any] = {
        "min_size": recipe.size,
        "max_size": recipe.longer_side,
        "image_mean": (mean / 255).tolist(),
        "image_std": (std / 255).tolist(),
    }
    pyramid = Pyramid(body, extra, recipe.width)
    if two_stages:
        images["box_batch_size_per_image"] = recipe.regions or REGIONS
        return FasterRCNN(pyramid, num_classes + 1, rpn_anchor_generator=anchors, **images)
    return RetinaNet(pyramid, num_classes + 1, anchor_generator=anchors, **images)


def _anchor_sizes(recipe: DetectionRecipe, level: int) -> tuple[int, ...]:
    """Sides of the anchors of a level of the pyramid; RetinaNet has three an octave."""
    side = recipe.smallest_anchor * 2**level
    return (side,) if recipe.head == "faster-rcnn" else tuple(int(side * 2 ** (third / 3)) for third in range(3))


def as_input(image: np.ndarray, device: torch.device) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) floats in [0, 1]."""
    return torch.from_numpy(np.array(image)).to(device).permute(2, 0, 1).float() / 255


def as_target(boxes: Boxes, device: torch.device) -> dict[str, Tensor]:
    """torchvision's form, in which label 0 is the background."""
    return {
        "boxes": torch.from_numpy(np.ascontiguousarray(boxes.boxes)).to(device),
        "labels": torch.from_numpy(boxes.labels + 1).to(device),
    }


class Detections(NamedTuple):
    """The objects found in an image, the surest first. boxes: (N, 4) in its pixels; labels: (N,); scores: (N,)."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, found: dict[str, Tensor]) -> Detections:
        """From torchvision's form."""
        boxes, labels, scores = (found[name].float().cpu().numpy() for name in ("boxes", "labels", "scores"))
        return cls(boxes, labels.astype(np.int64) - 1, scores)
