"""`python -m resnet.paper` prints Table 1 and Table 6's sizes with our counts beside."""

import argparse
from collections.abc import Iterable
from itertools import zip_longest

from torch import nn

from resnet.host.closed_pipe import quiet_when_closed
from resnet.networks.architectures import FAMILIES
from resnet.networks.cost import count, on_meta, trace
from resnet.networks.resnet import ResNet
from resnet.paper.published import TABLE1, TABLE6

LABEL, CELL, WIDTH = 15, 13, 80  # characters: the first column, the others, and all (a terminal has 80)


def architectures() -> str:
    """Table 1 as our networks are built, read from their modules: maps, kernels, channels, blocks."""
    nets = [on_meta(row.network) for row in TABLE1 if row.network]
    size = {step.name: step.shape[-1] for step in trace(nets[0], FAMILIES["imagenet"].image_size)}
    conv1 = nets[0].conv1
    lines = _header("layer   pixels", (f"{net.network.depth}-layer" for net in nets))
    lines.append(f"{_label('conv1', size['conv1'])}{_convolution(conv1)}, stride {conv1.stride[0]}")
    lines.append(f"{_label('pool', size['maxpool'])}3x3 max, stride 2")
    for number, stage in enumerate(nets[0].stages, start=2):
        blocks = zip_longest(*(_stage(net, stage) for net in nets), fillvalue="")
        first, *others = (_line("", cells) for cells in blocks)
        lines += [_label(f"conv{number}_x", size[stage]) + first[LABEL:], *others]
    lines.append(f"{_label('fc', 1)}average pool, {nets[0].fc.out_features}-d fc, softmax")
    return "\n".join(lines)


def imagenet_counts() -> str:
    """Multiply-adds and parameters of the ImageNet networks with each shortcut, below the paper's."""
    published = [row for row in TABLE1 if row.network]
    depths = FAMILIES["imagenet"].depths
    kinds = {"plain, A": "resnet{}-A", "B": "resnet{}-B", "C": "resnet{}-C", "B, v1.5": "resnet{}-B-v1.5"}
    costs = {kind: [count(f"imagenet-{form.format(depth)}") for depth in depths] for kind, form in kinds.items()}
    lines = _header("mult-adds/1e9", (f"{depth}-layer" for depth in depths), ">")
    lines.append(_line("the paper", (f"{row.multiply_adds / 1e9:.1f}" for row in published), ">"))
    lines += [_line(kind, (f"{cost.multiply_adds / 1e9:.3f}" for cost in row), ">") for kind, row in costs.items()]
    lines += ["", *_header("parameters", (f"{depth}-layer" for depth in depths), ">")]
    lines += [_line(kind, (f"{cost.parameters:,}" for cost in row), ">") for kind, row in costs.items()]
    return "\n".join(lines)


def cifar10_counts() -> str:
    """Parameters of the CIFAR-10 ResNets beside those of Table 6, and their multiply-adds."""
    rows = [(row.method, row.parameters, count(row.network)) for row in TABLE6 if row.network and row.parameters]
    lines = _header("CIFAR-10, A", ("mult-adds/1e6", "parameters", "the paper"), ">")
    for method, printed, cost in rows:
        cells = (f"{cost.multiply_adds / 1e6:,.1f}", f"{cost.parameters:,}", f"{printed / 1e6:.4g}M")
        lines.append(_line(method, cells, ">"))
    return "\n".join(lines)


def _stage(net: ResNet, stage: str) -> list[str]:
    """A cell of Table 1: a line per convolution of the stage's block, and how many blocks there are."""
    blocks = list(net.get_submodule(stage).children())
    first, second, *third = (_convolution(module) for module in blocks[0].children() if isinstance(module, nn.Conv2d))
    return [first, f"{second} x{len(blocks)}", *third]


def _convolution(module: nn.Conv2d) -> str:
    """`3x3, 64`: kernel and output channels."""
    return f"{module.kernel_size[0]}x{module.kernel_size[1]}, {module.out_channels}"


def _label(layer: str, size: int) -> str:
    """Layer and side of the map that it gives."""
    return f"{layer:8}{size:<{LABEL - 8}}"


def _header(label: str, cells: Iterable[str], align: str = "<") -> list[str]:
    return [_line(label, cells, align), "-" * WIDTH]


def _line(label: str, cells: Iterable[str], align: str = "<") -> str:
    return (f"{label:{LABEL}}" + "".join(f"{cell:{align}{CELL}}" for cell in cells)).rstrip()


def main() -> None:
    """Print Table 1 and Table 6's sizes with ours beside."""
    argparse.ArgumentParser("python -m resnet.paper", description=main.__doc__).parse_args()
    print("Table 1 of He et al. 2015, as built here\n")
    print(architectures(), imagenet_counts(), cifar10_counts(), sep="\n\n")


if __name__ == "__main__":
    with quiet_when_closed():
        main()
