"""Weights of others: a file with torchvision's names, opened without running code of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pipelines.models.weight_files import SUFFIXES, read_weights
from pipelines.shards import imagenet_classes
from resnet.image_class import ImageClass

if TYPE_CHECKING:
    from pipelines.models.preprocessing import ImagePreprocessing
    from pipelines.models.weight_files import WeightFile
    from resnet.evaluation.scorer import Model

WEIGHTS = SUFFIXES  # of files of weights


def open_weights(path: str, network: str | None, preprocess: str | None = None) -> Model:
    """Weights of torchvision, timm or Hugging Face, and of what trains such networks, with the preprocessing that they
    want, which is told on standard error. network, preprocess: where they do not say."""
    return model_of_file(path, read_weights(path), network, preprocess)[0]


def model_of_file(
    path: str, file: WeightFile, network: str | None, preprocess: str | None
) -> tuple[Model, ImagePreprocessing]:
    """The model of weights that were read. ValueError: they do not fit."""
    import torch

    from pipelines.models.preprocessing import class_names, preprocessing_of, settle_network
    from resnet.evaluation.scorer import Model
    from resnet.networks.weight_keys import torchvision_weights

    network = settle_network(network, file, path)
    try:
        weights = torchvision_weights(file.content)
    except ValueError as error:
        raise ValueError(f"{path} holds no weights of a residual network: {error}") from None
    how = preprocessing_of(file, preprocess)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) * 255 for values in (how.mean, how.std))
    outputs = weights["fc.weight"].shape[0]
    names = imagenet_classes.names_by_wnid() if outputs == 1000 else {}
    if not names and (own := class_names(file, outputs)) is not None:
        names = {name: name for name in own}
    classes = tuple(ImageClass(id=i, wnid=wnid, name=name) for i, (wnid, name) in enumerate(names.items())) or None
    model = Model(path, network, weights, mean, std, how.images, classes)
    model.build()  # now, and not on a worker, is the time to find that they do not fit
    print(f"{path.partition('?')[0]}: {network}, images {how.told}", file=sys.stderr)
    return model, how
