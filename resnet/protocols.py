"""Scores of images by the paper's test protocols, of one network or of several whose scores are averaged.

A score is a softmax probability. Scores of an image are averaged over its views, its scales and the networks, as in
the authors' references: AlexNet for 10-crop, VGG for the fully convolutional test.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from resnet.checkpoint import Checkpoint
from resnet.classes import ImageClass
from resnet.net import ResNet, build
from resnet.recipe import Images
from resnet.steps import Normalize, autocast
from resnet.views import MIRRORED, SQUARE, ViewProtocol
from resnet.weight_keys import misfit

PIXELS = 64 * 224 * 224  # of one pass through a network: bounds its memory


@dataclass(frozen=True)
class Model:
    """A trained network ready to be tested. mean, std: taken from and dividing the pixels, in [0, 255], (3, ., .).

    classes: what its outputs mean, or None for weights that do not say.
    """

    name: str
    network: str
    weights: dict[str, Tensor]
    mean: Tensor
    std: Tensor
    images: Images
    classes: tuple[ImageClass, ...] | None

    @classmethod
    def of(cls, name: str, checkpoint: Checkpoint) -> Model:
        """The model of one of our checkpoints."""
        pixels, recipe = checkpoint.pixels, checkpoint.recipe
        weights, images = checkpoint.network().state_dict(), recipe.images.for_evaluation()
        classes = checkpoint.progress.classes
        return cls(name, recipe.network, weights, pixels["mean"], pixels["std"], images, classes)

    @property
    def outputs(self) -> int:
        """Classes that the network tells apart."""
        return self.weights["fc.weight"].shape[0]

    def build(self) -> ResNet:
        """The network in evaluation mode. ValueError: the weights are another network's."""
        net = build(self.network, self.outputs)
        if (why := misfit(net, self.weights)) is not None:
            raise ValueError(f"network {self.network} does not fit the weights of {self.name}: {why}")
        net.load_state_dict(self.weights)
        return net.eval()


class Scorer:
    """Networks side by side on a device."""

    def __init__(
        self,
        models: Sequence[Model],
        protocol: ViewProtocol,
        *,
        mirror: bool = False,
        device: torch.device | str = "cpu",
        precision: str = "float32",
    ) -> None:
        require_alike(models)
        self.protocol, self.precision, self.device = protocol, precision, torch.device(device)
        self.mirrored = mirror or protocol in MIRRORED
        self.nets = [m.build().to(self.device) for m in models]
        for net in self.nets:
            net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        means = [m.mean if protocol in SQUARE else m.mean.mean((1, 2), keepdim=True) for m in models]
        self.normalize = [Normalize(mean, m.std).to(self.device) for mean, m in zip(means, models, strict=True)]
        self.window = window(self.nets[0], models[0].images.size)

    @torch.inference_mode()
    def score(self, views: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        """Averaged scores, (N, K) float64. views: of each image, as resnet.views gives them, (H, W, 3) uint8.

        Where each image has one view, all of a shape, images go through the networks in their order.
        """
        sums = np.zeros((len(views), self.nets[0].fc.out_features))
        for places, pixels in batches(views):
            images = torch.from_numpy(pixels).to(self.device)
            for net, normalize in zip(self.nets, self.normalize, strict=True):
                inputs = normalize(images)
                for flipped in (False, True) if self.mirrored else (False,):
                    scores = self.logits(net, inputs.flip(3) if flipped else inputs).softmax(1)
                    np.add.at(sums, places, scores.cpu().numpy())
        passes = np.array([len(own) for own in views]) * len(self.nets) * (2 if self.mirrored else 1)
        return sums / passes[:, None]

    def logits(self, net: ResNet, pixels: Tensor) -> Tensor:
        """Class scores before softmax, (N, K) float64. pixels: (N, 3, H, W), normalised; H, W: at least the size."""
        with autocast(self.device, self.precision):
            if self.protocol in SQUARE:
                return net(pixels).double()
            return score_map(net, pixels, self.window).double().mean((2, 3))


def batches(views: Sequence[Sequence[np.ndarray]]) -> Iterator[tuple[list[int], np.ndarray]]:
    """Views of the same shape together: the images that they belong to, and (N, H, W, 3) of at most PIXELS pixels."""
    same: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = defaultdict(list)
    for place, own in enumerate(views):
        for view in own:
            same[view.shape].append((place, view))
    for (height, width, _), found in same.items():
        count = max(1, PIXELS // (height * width))
        for start in range(0, len(found), count):
            places, arrays = zip(*found[start : start + count], strict=True)
            yield list(places), np.stack(arrays)


def window(net: ResNet, size: int) -> tuple[int, int]:
    """Side of the last map for an image of size x size: what average pooling covers in training, 7 for 224 pixels."""
    with torch.device("meta"):
        side = ResNet(net.network, 1).eval().features(torch.empty(1, 3, size, size)).shape[-1]
    return side, side


def score_map(net: ResNet, pixels: Tensor, window: tuple[int, int]) -> Tensor:
    """The fully convolutional network: logits at every place of an image, (N, 3, H, W) -> (N, K, h, w).

    Average pooling slides over the last map with its training window and stride 1, and the classifier becomes a 1x1
    convolution. At the training size h = w = 1, and the logits are the ordinary ones.
    """
    pooled = F.avg_pool2d(net.features(pixels), window, stride=1)
    return F.conv2d(pooled, net.fc.weight[:, :, None, None], net.fc.bias)


def require_alike(models: Sequence[Model]) -> None:
    """ValueError unless scores of the models can be averaged: same outputs, same views."""
    if not models:
        raise ValueError("one model or more must be given, got none")
    first = models[0]
    for other in models[1:]:
        if other.outputs != first.outputs or _wnids(other) != _wnids(first):
            raise ValueError(f"models of an ensemble must have the same classes, {first.name} and {other.name} differ")
        for field in ("size", "eval_shorter_side", "eval_interpolation"):
            mine, its = getattr(first.images, field), getattr(other.images, field)
            if mine != its:
                raise ValueError(
                    f"models of an ensemble must have the same images.{field}, got {mine} of {first.name} and {its} of "
                    f"{other.name}"
                )


def _wnids(model: Model) -> list[str] | None:
    return None if model.classes is None else [c.wnid for c in model.classes]
