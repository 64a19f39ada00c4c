"""The published results of He et al. (arXiv 1512.03385): its tables as rows. Its claims are in claims.py.

Errors are in percent. `network` is our canonical name, None for other people's networks and for ensembles.
"""

from dataclasses import dataclass
from typing import Literal

# §3.4; single: the 32x32 view of CIFAR-10, §4.2
Protocol = Literal["1-crop", "10-crop", "multi-scale", "ensemble", "single"]


@dataclass(frozen=True, slots=True)
class Complexity:
    """A column of Table 1. multiply_adds: the paper's FLOPs, as printed, for one 224x224 image."""

    source: str
    method: str
    network: str | None
    multiply_adds: float


@dataclass(frozen=True, slots=True)
class Result:
    """A published error. top1_error, top5_error: percent, as printed; mean and std of top1_error over `runs` trainings.

    parameters: as printed (Table 6). note: what makes the figure differ in kind from the others.
    """

    source: str
    method: str
    network: str | None
    protocol: Protocol
    top1_error: float | None
    top5_error: float | None = None
    mean: float | None = None
    std: float | None = None
    runs: int | None = None
    parameters: float | None = None
    note: str = ""


TABLE1 = (
    Complexity("Table 1", "18-layer", "imagenet-resnet18-A", 1.8e9),
    Complexity("Table 1", "34-layer", "imagenet-resnet34-A", 3.6e9),
    Complexity("Table 1", "50-layer", "imagenet-resnet50-B", 3.8e9),
    Complexity("Table 1", "101-layer", "imagenet-resnet101-B", 7.6e9),
    Complexity("Table 1", "152-layer", "imagenet-resnet152-B", 11.3e9),
    Complexity("§3.3", "VGG-16", None, 15.3e9),
    Complexity("§3.3", "VGG-19", None, 19.6e9),
)

# ImageNet validation, 10-crop
TABLE2 = (
    Result("Table 2", "plain-18", "imagenet-plain18", "10-crop", 27.94),
    Result("Table 2", "plain-34", "imagenet-plain34", "10-crop", 28.54),
    Result("Table 2", "ResNet-18", "imagenet-resnet18-A", "10-crop", 27.88),
    Result("Table 2", "ResNet-34", "imagenet-resnet34-A", "10-crop", 25.03),
)

# ImageNet validation, 10-crop
TABLE3 = (
    Result("Table 3", "VGG-16", None, "10-crop", 28.07, 9.33),
    Result("Table 3", "GoogLeNet", None, "10-crop", None, 9.15),
    Result("Table 3", "PReLU-net", None, "10-crop", 24.27, 7.38),
    Result("Table 3", "plain-34", "imagenet-plain34", "10-crop", 28.54, 10.02),
    Result("Table 3", "ResNet-34 A", "imagenet-resnet34-A", "10-crop", 25.03, 7.76),
    Result("Table 3", "ResNet-34 B", "imagenet-resnet34-B", "10-crop", 24.52, 7.46),
    Result("Table 3", "ResNet-34 C", "imagenet-resnet34-C", "10-crop", 24.19, 7.40),
    Result("Table 3", "ResNet-50", "imagenet-resnet50-B", "10-crop", 22.85, 6.71),
    Result("Table 3", "ResNet-101", "imagenet-resnet101-B", "10-crop", 21.75, 6.05),
    Result("Table 3", "ResNet-152", "imagenet-resnet152-B", "10-crop", 21.43, 5.71),
)

# ImageNet validation, one model, fully convolutional at five scales
TABLE4 = (
    Result("Table 4", "VGG (ILSVRC'14)", None, "multi-scale", None, 8.43),
    Result("Table 4", "GoogLeNet", None, "multi-scale", None, 7.89),
    Result("Table 4", "VGG (v5)", None, "multi-scale", 24.4, 7.1),
    Result("Table 4", "PReLU-net", None, "multi-scale", 21.59, 5.71),
    Result("Table 4", "BN-inception", None, "multi-scale", 21.99, 5.81),
    Result("Table 4", "ResNet-34 B", "imagenet-resnet34-B", "multi-scale", 21.84, 5.71),
    Result("Table 4", "ResNet-34 C", "imagenet-resnet34-C", "multi-scale", 21.53, 5.60),
    Result("Table 4", "ResNet-50", "imagenet-resnet50-B", "multi-scale", 20.74, 5.25),
    Result("Table 4", "ResNet-101", "imagenet-resnet101-B", "multi-scale", 19.87, 4.60),
    Result("Table 4", "ResNet-152", "imagenet-resnet152-B", "multi-scale", 19.38, 4.49),
)

# ImageNet test set, several models
TABLE5 = (
    Result("Table 5", "VGG (ILSVRC'14)", None, "ensemble", None, 7.32),
    Result("Table 5", "GoogLeNet", None, "ensemble", None, 6.66),
    Result("Table 5", "VGG (v5)", None, "ensemble", None, 6.8),
    Result("Table 5", "PReLU-net", None, "ensemble", None, 4.94),
    Result("Table 5", "BN-inception", None, "ensemble", None, 4.82),
    Result("Table 5", "ResNet (ILSVRC'15)", None, "ensemble", None, 3.57),
)

# CIFAR-10 test set, trained with augmentation. Where there are several runs, top1_error is the best of them.
TABLE6 = (
    Result("Table 6", "Maxout", None, "single", 9.38),
    Result("Table 6", "NIN", None, "single", 8.81),
    Result("Table 6", "DSN", None, "single", 8.22),
    Result("Table 6", "FitNet-19", None, "single", 8.39, parameters=2.5e6),
    Result("Table 6", "Highway-19", None, "single", 7.54, mean=7.72, std=0.16, parameters=2.3e6),
    Result("Table 6", "Highway-32", None, "single", 8.80, parameters=1.25e6),
    Result("Table 6", "ResNet-20", "cifar10-resnet20-A", "single", 8.75, parameters=0.27e6),
    Result("Table 6", "ResNet-32", "cifar10-resnet32-A", "single", 7.51, parameters=0.46e6),
    Result("Table 6", "ResNet-44", "cifar10-resnet44-A", "single", 7.17, parameters=0.66e6),
    Result("Table 6", "ResNet-56", "cifar10-resnet56-A", "single", 6.97, parameters=0.85e6),
    Result(
        "Table 6", "ResNet-110", "cifar10-resnet110-A", "single", 6.43,
        mean=6.61, std=0.16, runs=5, parameters=1.7e6,
    ),
    Result("Table 6", "ResNet-1202", "cifar10-resnet1202-A", "single", 7.93, parameters=19.4e6),
)  # fmt: skip

# The authors' README: centre 224 of shorter side 256, ImageNet validation
RELEASE = (
    Result("release", "ResNet-50", "imagenet-resnet50-B", "1-crop", 24.7, 7.8),
    Result("release", "ResNet-101", "imagenet-resnet101-B", "1-crop", 23.6, 7.1),
    Result("release", "ResNet-152", "imagenet-resnet152-B", "1-crop", 23.0, 6.7),
)

_BEST_EPOCH = "error of the best test epoch, an unfair selection"

# Others' trainings of the same networks. An accuracy of 69.758 % is a top1_error of 30.242.
OTHERS = (
    Result("torchvision IMAGENET1K_V1", "R18", "imagenet-resnet18-B-v1.5", "1-crop", 30.242),
    Result("torchvision IMAGENET1K_V1", "R34", "imagenet-resnet34-B-v1.5", "1-crop", 26.686),
    Result("torchvision IMAGENET1K_V1", "R50", "imagenet-resnet50-B-v1.5", "1-crop", 23.870),
    Result("torchvision IMAGENET1K_V1", "R101", "imagenet-resnet101-B-v1.5", "1-crop", 22.626),
    Result("torchvision IMAGENET1K_V1", "R152", "imagenet-resnet152-B-v1.5", "1-crop", 21.688),
    Result("fb.resnet.torch", "R18", "imagenet-resnet18-B-v1.5", "10-crop", 28.22),
    Result("fb.resnet.torch", "R34", "imagenet-resnet34-B-v1.5", "10-crop", 24.76),
    Result("fb.resnet.torch", "R50", "imagenet-resnet50-B-v1.5", "10-crop", 22.24),
    Result("fb.resnet.torch", "R101", "imagenet-resnet101-B-v1.5", "10-crop", 21.08),
    Result("fb.resnet.torch", "R152", "imagenet-resnet152-B-v1.5", "10-crop", 20.69),
    Result("NVIDIA", "R50 v1.5", "imagenet-resnet50-B-v1.5", "1-crop", 22.88, mean=22.88, std=0.11, note="90 epochs"),
    Result(
        "MLPerf", "R50 v1.5", "imagenet-resnet50-B-v1.5", "1-crop", 24.10, note="target, 33-37 epochs at batch 1632"
    ),
    Result("akamaster", "ResNet-20", "cifar10-resnet20-A", "single", 8.27, note=_BEST_EPOCH),
    Result("akamaster", "ResNet-32", "cifar10-resnet32-A", "single", 7.37, note=_BEST_EPOCH),
    Result("akamaster", "ResNet-44", "cifar10-resnet44-A", "single", 6.90, note=_BEST_EPOCH),
    Result("akamaster", "ResNet-56", "cifar10-resnet56-A", "single", 6.61, note=_BEST_EPOCH),
    Result("akamaster", "ResNet-110", "cifar10-resnet110-A", "single", 6.32, note=_BEST_EPOCH),
    Result("akamaster", "ResNet-1202", "cifar10-resnet1202-A", "single", 6.18, note=_BEST_EPOCH),
)

RESULTS = (*TABLE2, *TABLE3, *TABLE4, *TABLE5, *TABLE6, *RELEASE, *OTHERS)
