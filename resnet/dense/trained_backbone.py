"""`resnet.backbone`: the maps of a network by its name, or of a checkpoint with its trained weights."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from resnet.networks.backbone import Backbone, Maps
from resnet.networks.resnet import ResNet, build
from resnet.training.checkpoint import Checkpoint, load_checkpoint


def backbone(
    source: str | os.PathLike[str] | Checkpoint | ResNet,
    out: Maps | None = None,
    dilated: Collection[str] = (),
    *,
    frozen_norm: bool = True,
) -> Backbone:
    """A network as a backbone of torchvision's heads; see Backbone.

    source: a network's name (random weights, of torch's global generator), a checkpoint or its folder, or a network,
    which is taken over. ValueError: there is no such network, or the folder holds no checkpoint.
    """
    return Backbone(_network(source), out, dilated, frozen_norm=frozen_norm)


def _network(source: str | os.PathLike[str] | Checkpoint | ResNet) -> ResNet:
    if isinstance(source, ResNet):
        return source
    if isinstance(source, Checkpoint):
        return source.network().train()
    if isinstance(source, str) and not Path(source).is_dir():
        return build(source)
    return load_checkpoint(source).network().train()
