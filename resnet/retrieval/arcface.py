"""ArcFace (Deng et al. 2019, arXiv 1801.07698): classes are directions, with an angular margin around each.

In training the classifier gives the cosines of the pooled features and its class weights; the loss, the library
pytorch-metric-learning's, adds the margin to the angle of the right class. Class weights stay of length 1, so that in
evaluation and serving the network is one like any other: its plain product has the same best class as the cosines.
The embedding is the pooled features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.networks.resnet import ResNet
from resnet.recipes.loss_settings import MARGIN, SCALE, Loss, require_arcface

LARGEST = 1 - 1e-6  # of a cosine: the arc cosine's slope is infinite at 1


class CosineClassifier(nn.Linear):
    """The classifier of a network, which gives cosines while it is trained. Its bias is zero and stays so."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C) features to (N, K): cosines in training, in float32; in evaluation the product with unit weights."""
        if not self.training:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(F.normalize(input.float()), F.normalize(self.weight.float()))

    @torch.no_grad()
    def to_unit(self) -> None:
        """Weights of length 1, which has no effect on the cosines, and a bias of zero."""
        self.weight.copy_(F.normalize(self.weight))
        self.bias.zero_()


def make_cosine(net: ResNet) -> CosineClassifier:
    """The network's classifier as one of cosines, in place, with the weights that it has."""
    made = CosineClassifier(net.fc.in_features, net.fc.out_features)
    made.load_state_dict(net.fc.state_dict())
    made.bias.requires_grad_(False)
    made.to_unit()
    net.fc = made
    return made


def arcface(
    asked: Loss, classes: int, class_weights: Tensor | None = None
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The loss of a batch's cosines (N, K) and labels (N,), and the number whose best cosine is not their label's.

    class_weights: (K,), of an image's loss by its label. ValueError: the library is not installed.
    """
    require_arcface()
    from pytorch_metric_learning.losses import ArcFaceLoss
    from pytorch_metric_learning.reducers import ClassWeightedReducer, MeanReducer

    class OfCosines(ArcFaceLoss):
        """The library's loss. The class weights are the network's own, where DDP, averages and checkpoints have them,
        and so the cosines are given."""

        def get_cosine(self, embeddings: Tensor) -> Tensor:
            """The cosines themselves."""
            return embeddings.clamp(-LARGEST, LARGEST)

    reducer = MeanReducer() if class_weights is None else ClassWeightedReducer(class_weights)
    margin, scale = math.degrees(asked.margin or MARGIN), asked.scale or SCALE
    own: dict[str, Any] = {"margin": margin, "scale": scale, "reducer": reducer}  # it says no types, but whole defaults
    with torch.random.fork_rng(devices=[]):  # it draws class weights of its own, which are not used
        loss = OfCosines(num_classes=classes, embedding_size=1, **own)

    def judged(cosines: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return loss(cosines, labels), (cosines.detach().argmax(1) != labels).sum()

    return judged
