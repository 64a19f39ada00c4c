"""The plain and residual networks of He et al. (§3.3, §4.2), built from architectures.py."""

import torch.nn.functional as F
from torch import Tensor, nn

from resnet.networks.architectures import EXPANSION, FAMILIES, Architecture, Block, Shortcut, parse_network


class PaddedIdentity(nn.Module):
    """Option A: every stride-th pixel, then `extra` zero channels. (N, C, H, W) -> (N, C + extra, H/stride, W/stride).

    No parameters. He et al. §3.3. Where the width grows fourfold (a bottleneck net's first block) it pads as well.
    """

    def __init__(self, extra: int, stride: int) -> None:
        """extra: channels to add; stride: pixels from one kept pixel to the next."""
        super().__init__()
        self.extra = extra
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Subsample, then pad; the memory format of x is kept."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))

    def extra_repr(self) -> str:
        """The line that print(net) shows."""
        return f"extra={self.extra}, stride={self.stride}"


def convolution(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A square convolution that keeps the size at stride 1; no bias, for batch normalisation follows and has one."""
    return nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)


def shortcut_path(option: Shortcut, channels_in: int, channels_out: int, stride: int) -> nn.Module | None:
    """The summand of a block's output: none in a plain net, else the identity, its padding (A) or a projection."""
    changes = stride != 1 or channels_in != channels_out
    if option == "none":
        return None
    if option == "C" or (option == "B" and changes):
        return nn.Sequential(convolution(channels_in, channels_out, 1, stride), nn.BatchNorm2d(channels_out))
    return PaddedIdentity(channels_out - channels_in, stride) if changes else nn.Identity()


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (figure 5, left). (N, C, H, W) -> (N, width, H/stride, W/stride)."""

    def __init__(self, channels_in: int, width: int, stride: int, network: Architecture) -> None:
        """width: channels of the 3x3 convolutions; network: says the shortcut, and where the stride is."""
        super().__init__()
        self.conv1 = convolution(channels_in, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut_path(network.shortcut, channels_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """relu(F(x) + shortcut(x)), or relu(F(x)) in a plain net; equations 1 and 2."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y if self.downsample is None else y + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 of four times the width (figure 5, right). (N, C, H, W) -> (N, 4 width, H/stride, W/stride).

    The paper's block strides in its first 1x1; v1.5 in the 3x3, which sees every pixel and costs more.
    """

    def __init__(self, channels_in: int, width: int, stride: int, network: Architecture) -> None:
        """width: channels of the 3x3 convolutions; network: says the shortcut, and where the stride is."""
        super().__init__()
        channels_out = EXPANSION["bottleneck"] * width
        self.conv1 = convolution(channels_in, width, 1, 1 if network.v15 else stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, stride if network.v15 else 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, channels_out, 1)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut_path(network.shortcut, channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """relu(F(x) + shortcut(x)), or relu(F(x)) in a plain net; equations 1 and 2."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y if self.downsample is None else y + self.downsample(x))


BLOCKS: dict[Block, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def stage(network: Architecture, channels_in: int, width: int, count: int, stride: int) -> nn.Sequential:
    """`count` blocks, the first of which changes size and width: conv2_x, conv3_x, ... of Table 1."""
    kind = network.layout.block
    blocks = [BLOCKS[kind](channels_in, width, stride, network)]
    blocks += [BLOCKS[kind](EXPANSION[kind] * width, width, 1, network) for _ in range(count - 1)]
    return nn.Sequential(*blocks)


class ResNet(nn.Module):
    """A network of the paper: stem, stages layer1, layer2, ..., global average pool, fc. Images (N, 3, H, W).

    The keys of state_dict are torchvision's. `network` says which one this is, `num_features` is C after pooling.
    ReLU works in place: a forward hook on batch normalisation must use its output at once, or copy it.
    """

    def __init__(self, network: Architecture, num_classes: int | None = None) -> None:
        """Modules with torch's own initial weights (`build` gives the paper's), for the family's classes or other."""
        super().__init__()
        family, layout = FAMILIES[network.family], network.layout
        classes = family.num_classes if num_classes is None else num_classes
        if classes < 1:
            raise ValueError(f"num_classes must be at least 1, not {classes}")
        self.network = network
        channels = family.widths[0]
        self.conv1 = convolution(3, channels, family.stem.kernel, family.stem.stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if family.stem.max_pool else nn.Identity()
        self.stages = network.parts[1:]
        for name, width, count in zip(self.stages, family.widths, layout.counts, strict=True):
            stride = 1 if name == self.stages[0] else 2  # each stage but the first halves the map
            self.add_module(name, stage(network, channels, width, count, stride))
            channels = EXPANSION[layout.block] * width
        self.num_features = channels
        self.fc = nn.Linear(channels, classes)

    def features(self, x: Tensor) -> Tensor:
        """The map before pooling. (N, 3, H, W) -> (N, C, H/32, W/32) for imagenet, (N, C, H/4, W/4) for cifar10."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return x

    def embed(self, x: Tensor) -> Tensor:
        """Features after global average pooling. (N, 3, H, W) -> (N, C)."""
        return self.features(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits. (N, 3, H, W) -> (N, num_classes)."""
        return self.fc(self.embed(x))


def initialise(net: nn.Module) -> None:
    """Weights from N(0, sqrt(2 / fan_in)), batch normalisation at 1 and 0, fc's bias 0; torch's global generator.

    He et al. §3.4 and their reference [13]; the authors' Caffe filler divides by fan_in, torchvision by fan_out.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def zero_last_scales(net: ResNet) -> None:
    """Each block's last BN scale to 0, so that every block starts as its shortcut (Goyal et al. 2017, §5.1)."""
    if net.network.shortcut == "none":
        raise ValueError(f"zero_init_last_bn must be False for {net.network.name}: without shortcuts its output is 0")
    for module in net.modules():
        if isinstance(module, BasicBlock | Bottleneck):
            nn.init.zeros_(module.bn2.weight if isinstance(module, BasicBlock) else module.bn3.weight)


def build(name: str, num_classes: int | None = None, *, zero_init_last_bn: bool = False) -> ResNet:
    """The network of a name, initialised as in the paper from torch's global generator; see `resnet.names()`.

    num_classes: the family's own (imagenet 1000, cifar10 10) unless given. ValueError for a wrong name or number.
    """
    net = ResNet(parse_network(name), num_classes)
    initialise(net)
    if zero_init_last_bn:
        zero_last_scales(net)
    return net
