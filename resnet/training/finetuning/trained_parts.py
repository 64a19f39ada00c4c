"""A network that begins with trained weights: which of them it takes, and which parts of it are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from resnet.image_class import ImageClass
from resnet.networks.resnet import ResNet
from resnet.networks.weight_keys import misfit
from resnet.recipes.recipe_settings import FineTuning

HEAD = ("fc.weight", "fc.bias")


class FrozenBatchNorm(nn.BatchNorm2d):
    """Batch norm that normalises by the statistics it began with, in training too, and learns nothing."""

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        """Stays in evaluation mode."""
        super().train(False)
        return self


def rows_of_head(
    known: Sequence[ImageClass] | None, classes: Sequence[ImageClass], head: Literal["auto", "new", "kept"] = "auto"
) -> list[int] | None:
    """The output of trained weights that each class of the data is, by their ids; None: the classifier begins anew.

    known: what the outputs of the weights mean, None where they do not say. ValueError: head is kept, and a class is
    not among them.
    """
    if head == "new":
        return None
    places = {c.wnid: c.id for c in known or ()}
    missing = [c for c in classes if c.wnid not in places]
    if not missing:
        return [places[c.wnid] for c in classes]
    if head == "kept":
        what = "which do not say what their outputs mean" if known is None else f"{len(places)} classes"
        raise ValueError(
            f"finetune.head must be new or auto where the weights do not know a class of the data, {missing[0].wnid}, "
            f"got kept and weights of {what}"
        )
    return None


def take_weights(net: ResNet, weights: Mapping[str, Tensor], rows: Sequence[int] | None) -> None:
    """Put trained weights into a network. rows: of their classifier, for its outputs; None: its own classifier stays.

    ValueError: they are of another depth, width or shortcut.
    """
    own = net.state_dict()
    given = {
        name: tensor for name, tensor in weights.items() if name in own or not name.endswith("num_batches_tracked")
    }
    for name in HEAD:
        if rows is None:
            given[name] = own[name]
        elif name in given:
            given[name] = given[name][torch.as_tensor(rows)]
    if (why := misfit(net, given)) is not None:
        raise ValueError(why)
    net.load_state_dict(own | given)


def freeze(net: ResNet, asked: FineTuning) -> None:
    """Take what is not trained out of the training: its weights need no gradient, its batch norms keep statistics."""
    parts = net.network.parts
    frozen = parts[: parts.index(asked.frozen) + 1] if asked.frozen != "none" else ()
    names = [name for part in frozen for name in (("conv1", "bn1") if part == "stem" else (part,))]
    for name in names:
        net.get_submodule(name).requires_grad_(False)
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            inside = any(name == part or name.startswith(f"{part}.") for part in names)
            if inside or asked.batch_norm == "frozen":
                net.set_submodule(name, _frozen(module))


def _frozen(module: nn.BatchNorm2d) -> FrozenBatchNorm:
    """The same layer, its tensors included, which stays as it is."""
    frozen = FrozenBatchNorm(module.num_features, module.eps, module.momentum)
    frozen.load_state_dict(module.state_dict())
    return frozen.eval().requires_grad_(False)


def class_weights(counts: Sequence[int]) -> Tensor:
    """Weight of an image by its class, (K,) float32, so that all classes with images weigh the same and the mean over
    the training set is 1. counts: training images by class."""
    sizes = torch.tensor(counts, dtype=torch.float64)
    there = sizes > 0
    weights = torch.where(there, sizes.sum() / (there.sum() * sizes.clamp(min=1)), 0.0)
    return weights.float()
