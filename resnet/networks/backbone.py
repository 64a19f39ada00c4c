"""The maps of a network's stages, C2 to C5, for torchvision's heads of detection and segmentation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from resnet.networks.architectures import EXPANSION, FAMILIES, Architecture
from resnet.networks.resnet import PaddedIdentity, ResNet

Maps = Mapping[str, str] | Sequence[str]  # C4, C5, ..., or what each of them is called: {"C5": "out"}


def map_names(network: Architecture) -> tuple[str, ...]:
    """C2, C3, ... of the stages layer1, layer2, ...: Lin et al. 2017 (arXiv 1612.03144) count the stem as C1."""
    return tuple(f"C{number}" for number, _ in enumerate(network.layout.counts, start=2))


class Backbone(nn.Module):
    """A network without pooling and classifier: images (N, 3, H, W) -> its maps by name, the largest first.

    State_dict keys are the network's, and so torchvision's. `channels`, `strides`: of each map; a stride is the
    number of the image's pixels from one pixel of the map to the next.
    """

    def __init__(
        self, net: ResNet, out: Maps | None = None, dilated: Collection[str] = (), *, frozen_norm: bool = True
    ) -> None:
        """Take over the modules of `net`, which is changed and must not be used any more.

        out: maps to give, None: all; dilated: maps whose stage keeps the size and dilates its 3x3 convolutions instead
        of halving (arXiv 1606.00915; torchvision's segmentation: C4 and C5); frozen_norm: batch norm's statistics,
        scales and shifts stay as they are, as in detection, where a batch is too small for statistics.

        ValueError: a map that the network does not have.
        """
        super().__init__()
        known = dict(zip(map_names(net.network), net.stages, strict=True))
        given = out if isinstance(out, Mapping) else {name: name for name in out or known}
        for field, names in (("out", given), ("dilated", dilated)):
            for name in names:
                if name not in known:
                    raise ValueError(f"{field} must be some of {', '.join(known)} for {net.network.name}, got {name}")
        if not given:
            raise ValueError(f"out must be some of {', '.join(known)} for {net.network.name}, got none")
        last = max(list(known).index(name) for name in given)
        self.network = net.network
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.called = {stage: given[name] for name, stage in known.items() if name in given}
        self.stages = net.stages[: last + 1]
        stem, width = FAMILIES[net.network.family].stem, FAMILIES[net.network.family].widths
        stride, rate = stem.stride * (2 if stem.max_pool else 1), 1
        channels, strides = [], []
        for number, (name, stage) in enumerate(list(known.items())[: last + 1]):
            blocks = net.get_submodule(stage)
            rate, before = _dilate(blocks, rate, keeps_size=name in dilated), rate
            stride *= (2 if number else 1) // (rate // before)
            self.add_module(stage, blocks)
            if stage in self.called:
                channels.append(EXPANSION[net.network.layout.block] * width[number])
                strides.append(stride)
        self.channels, self.strides = tuple(channels), tuple(strides)
        if frozen_norm:
            freeze_norm(self)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """The maps by name. x: (N, 3, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        found: OrderedDict[str, Tensor] = OrderedDict()
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
            if stage in self.called:
                found[self.called[stage]] = x
        return found

    def train_last(self, stages: int) -> None:
        """Train the last stages only; 0 trains nothing. More than there are: the stem too.

        ValueError: a negative number.
        """
        if stages < 0:
            raise ValueError(f"stages must be at least 0, got {stages}")
        parts = [self.conv1, self.bn1, *map(self.get_submodule, self.stages)]
        frozen = parts[: max(0, len(self.stages) - stages) + 2] if stages <= len(self.stages) else []
        for part in frozen:
            part.requires_grad_(False)


def freeze_norm(module: nn.Module) -> None:
    """Put torchvision's FrozenBatchNorm2d in the place of every batch norm, with its statistics, scale and shift."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, eps=child.eps)
            frozen.load_state_dict({key: value for key, value in child.state_dict().items() if key in NORM})
            setattr(module, name, frozen.to(child.weight.device))
        else:
            freeze_norm(child)


NORM = ("weight", "bias", "running_mean", "running_var")


def _dilate(stage: nn.Module, rate: int, *, keeps_size: bool) -> int:
    """Dilate the convolutions of a stage by `rate`, what the stages before it have not halved; the rate behind it.

    keeps_size: its strides become 1, and what comes after each dilates by that much more. Every pixel that the strided
    stage gives has the same value.
    """
    for block in stage.children():
        stride = 1
        for convolution in (child for child in block.children() if isinstance(child, nn.Conv2d)):
            if convolution.kernel_size != (1, 1):
                convolution.dilation = convolution.padding = (rate, rate)
            if keeps_size:
                stride *= convolution.stride[0]
                rate *= convolution.stride[0]
                convolution.stride = (1, 1)
        if stride > 1:
            _keep_size(block.get_submodule("downsample") if getattr(block, "downsample", None) is not None else None)
    return rate


def _keep_size(shortcut: nn.Module | None) -> None:
    """A shortcut with stride 1: a projection, or the padding of option A."""
    if isinstance(shortcut, PaddedIdentity):
        shortcut.stride = 1
    elif isinstance(shortcut, nn.Sequential):
        projection = shortcut[0]
        assert isinstance(projection, nn.Conv2d)
        projection.stride = (1, 1)
