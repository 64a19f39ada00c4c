"""torchvision's segmentation heads on a backbone of ours, dilated to an output stride of 8."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3
from torchvision.models.segmentation.fcn import FCN, FCNHead

from resnet.dense.dense_recipe import SegmentationRecipe
from resnet.dense.targets import IGNORED
from resnet.dense.trained_backbone import backbone
from resnet.networks.resnet import ResNet
from resnet.training.step import Normalize


class Segmenter(nn.Module):
    """Images (N, H, W, 3) uint8 -> logits (N, K, H, W) by name: `out`, and in training `aux` of the second head."""

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.normalize, self.network = Normalize(mean.reshape(3, 1, 1), std.reshape(3, 1, 1)), network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits at the images' own size."""
        return self.network(self.normalize(images))


def build_segmenter(
    recipe: SegmentationRecipe, num_classes: int, mean: Tensor, std: Tensor, net: ResNet | None = None
) -> Segmenter:
    """A segmenter. mean, std: (3,) of the pixels in [0, 255]; net: as of build_detector."""
    maps = {"C4": "aux", "C5": "out"} if recipe.auxiliary else {"C5": "out"}
    body = backbone(net or recipe.network, maps, ("C4", "C5"), frozen_norm=recipe.norm == "frozen")
    body.train_last(recipe.trained_stages)
    kind, head = (FCN, FCNHead) if recipe.head == "fcn" else (DeepLabV3, DeepLabHead)
    auxiliary = FCNHead(body.channels[0], num_classes) if recipe.auxiliary else None
    return Segmenter(kind(body, head(body.channels[-1], num_classes), auxiliary), mean, std)


def segmentation_loss(logits: dict[str, Tensor], masks: Tensor, auxiliary: float) -> Tensor:
    """Mean cross-entropy over the pixels that count, with that of the second head. masks: (N, H, W) int64."""
    loss = F.cross_entropy(logits["out"].float(), masks, ignore_index=IGNORED)
    if "aux" in logits:
        loss = loss + auxiliary * F.cross_entropy(logits["aux"].float(), masks, ignore_index=IGNORED)
    return loss


@torch.no_grad()
def class_masks(network: nn.Module, image: np.ndarray, height: int, width: int, device: torch.device) -> np.ndarray:
    """The class of each pixel of an image, (height, width) uint8: logits are resized to that, and the largest wins."""
    logits = network(torch.from_numpy(np.array(image))[None].to(device))["out"].float()
    if logits.shape[-2:] != (height, width):
        logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
    return logits[0].argmax(0).to(torch.uint8).cpu().numpy()
