"""What He et al. (arXiv 1512.03385) published: its tables as rows, its claims as comparisons that results can decide.

Errors are in percent. `network` is our canonical name, None for other people's networks and for ensembles.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Protocol = Literal["1-crop", "10-crop", "multi-scale", "ensemble", "single view"]  # §3.4; single view: CIFAR-10, §4.2
Metric = Literal["top1_error", "top5_error", "train_error", "response_std"]
Relation = Literal["<", ">"]
Verdict = Literal["holds", "fails", "not decided", "not run"]
Results = Mapping[tuple[str, str], Mapping[int, float]]  # (network name, metric) -> {seed: value}, of one protocol
Interval = Callable[
    [Sequence[float]], tuple[float, float]
]  # two or more differences -> their mean's confidence interval


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
    Result("Table 6", "Maxout", None, "single view", 9.38),
    Result("Table 6", "NIN", None, "single view", 8.81),
    Result("Table 6", "DSN", None, "single view", 8.22),
    Result("Table 6", "FitNet-19", None, "single view", 8.39, parameters=2.5e6),
    Result("Table 6", "Highway-19", None, "single view", 7.54, mean=7.72, std=0.16, parameters=2.3e6),
    Result("Table 6", "Highway-32", None, "single view", 8.80, parameters=1.25e6),
    Result("Table 6", "ResNet-20", "cifar10-resnet20-A", "single view", 8.75, parameters=0.27e6),
    Result("Table 6", "ResNet-32", "cifar10-resnet32-A", "single view", 7.51, parameters=0.46e6),
    Result("Table 6", "ResNet-44", "cifar10-resnet44-A", "single view", 7.17, parameters=0.66e6),
    Result("Table 6", "ResNet-56", "cifar10-resnet56-A", "single view", 6.97, parameters=0.85e6),
    Result(
        "Table 6", "ResNet-110", "cifar10-resnet110-A", "single view", 6.43,
        mean=6.61, std=0.16, runs=5, parameters=1.7e6,
    ),
    Result("Table 6", "ResNet-1202", "cifar10-resnet1202-A", "single view", 7.93, parameters=19.4e6),
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
    Result("akamaster", "ResNet-20", "cifar10-resnet20-A", "single view", 8.27, note=_BEST_EPOCH),
    Result("akamaster", "ResNet-32", "cifar10-resnet32-A", "single view", 7.37, note=_BEST_EPOCH),
    Result("akamaster", "ResNet-44", "cifar10-resnet44-A", "single view", 6.90, note=_BEST_EPOCH),
    Result("akamaster", "ResNet-56", "cifar10-resnet56-A", "single view", 6.61, note=_BEST_EPOCH),
    Result("akamaster", "ResNet-110", "cifar10-resnet110-A", "single view", 6.32, note=_BEST_EPOCH),
    Result("akamaster", "ResNet-1202", "cifar10-resnet1202-A", "single view", 6.18, note=_BEST_EPOCH),
)

RESULTS = (*TABLE2, *TABLE3, *TABLE4, *TABLE5, *TABLE6, *RELEASE, *OTHERS)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`metric` of network `left`, against that of network `right` or a fixed number in the metric's unit."""

    left: str
    relation: Relation
    right: str | float
    metric: Metric
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of the paper, its table, figure or section, and the comparisons that must all hold for it to hold."""

    id: str
    sentence: str
    source: str
    comparisons: tuple[Comparison, ...]


def chain(metric: Metric, protocol: Protocol, relation: Relation, *networks: str | float) -> tuple[Comparison, ...]:
    """a > b > c as the comparisons of neighbours; only the last may be a number."""
    return tuple(Comparison(str(left), relation, right, metric, protocol) for left, right in pairwise(networks))


def _imagenet(metric: Metric, relation: Relation, *nets: str, protocol: Protocol = "10-crop") -> tuple[Comparison, ...]:
    return chain(metric, protocol, relation, *(f"imagenet-{net}" for net in nets))


def _cifar10(metric: Metric, relation: Relation, *nets: str | float) -> tuple[Comparison, ...]:
    names = (f"cifar10-{net}" if isinstance(net, str) else net for net in nets)
    return chain(metric, "single view", relation, *names)


CLAIMS = (
    Claim(
        "imagenet-plain-degrades",
        "The 34-layer plain net has a higher validation error than the 18-layer plain net.",
        "Table 2",
        _imagenet("top1_error", ">", "plain34", "plain18"),
    ),
    Claim(
        "imagenet-plain-trains-worse",
        "The 34-layer plain net has a higher training error than the 18-layer plain net.",
        "Figure 4",
        _imagenet("train_error", ">", "plain34", "plain18"),
    ),
    Claim(
        "imagenet-resnet-gains",
        "The 34-layer ResNet is better than the 18-layer ResNet.",
        "Table 2",
        _imagenet("top1_error", "<", "resnet34-A", "resnet18-A"),
    ),
    Claim(
        "imagenet-resnet-trains-better",
        "The 34-layer ResNet has a lower training error than the 18-layer ResNet.",
        "Figure 4",
        _imagenet("train_error", "<", "resnet34-A", "resnet18-A"),
    ),
    Claim(
        "residual-beats-plain",
        "The 34-layer ResNet is better than its plain counterpart.",
        "Table 2",
        _imagenet("top1_error", "<", "resnet34-A", "plain34"),
    ),
    Claim(
        "all-options-beat-plain",
        "Options A, B and C are all considerably better than the plain net.",
        "Table 3",
        _imagenet("top1_error", "<", "resnet34-A", "plain34")
        + _imagenet("top1_error", "<", "resnet34-B", "plain34")
        + _imagenet("top1_error", "<", "resnet34-C", "plain34"),
    ),
    Claim(
        "b-beats-a",
        "B is slightly better than A.",
        "Table 3",
        _imagenet("top1_error", "<", "resnet34-B", "resnet34-A"),
    ),
    Claim(
        "c-beats-b",
        "C is slightly better than B.",
        "Table 3",
        _imagenet("top1_error", "<", "resnet34-C", "resnet34-B"),
    ),
    Claim(
        "bottleneck-beats-34",
        "The 50-layer ResNet is better than the best 34-layer ResNet.",
        "Table 3",
        _imagenet("top1_error", "<", "resnet50-B", "resnet34-C"),
    ),
    Claim(
        "deeper-is-better-10-crop",
        "The 152-layer ResNet is better than the 101-layer one, and that one than the 50-layer one.",
        "Table 3",
        _imagenet("top1_error", "<", "resnet152-B", "resnet101-B", "resnet50-B"),
    ),
    Claim(
        "deeper-is-better-multi-scale",
        "As single models at several scales, 152 layers are better than 101, 101 than 50, and 50 than 34.",
        "Table 4",
        _imagenet("top1_error", "<", "resnet152-B", "resnet101-B", "resnet50-B", "resnet34-C", protocol="multi-scale"),
    ),
    Claim(
        "cifar10-plain-degrades",
        "On CIFAR-10 the test error of plain nets grows with depth.",
        "Figure 6",
        _cifar10("top1_error", "<", "plain20", "plain32", "plain44", "plain56"),
    ),
    Claim(
        "cifar10-plain-trains-worse",
        "On CIFAR-10 the training error of plain nets grows with depth.",
        "Figure 6",
        _cifar10("train_error", "<", "plain20", "plain32", "plain44", "plain56"),
    ),
    Claim(
        "cifar10-plain110-is-lost",
        "The 110-layer plain net has an error above 60 % on CIFAR-10.",
        "Figure 6",
        _cifar10("top1_error", ">", "plain110", 60.0),
    ),
    Claim(
        "cifar10-resnet-gains",
        "On CIFAR-10 the test error of ResNets falls with depth, from 20 to 110 layers.",
        "Table 6",
        _cifar10("top1_error", ">", *(f"resnet{depth}-A" for depth in (20, 32, 44, 56, 110))),
    ),
    Claim(
        "cifar10-1202-overfits",
        "The 1202-layer ResNet has a higher test error than the 110-layer one.",
        "Table 6",
        _cifar10("top1_error", ">", "resnet1202-A", "resnet110-A"),
    ),
    Claim(
        "cifar10-1202-trains",
        "The 1202-layer ResNet trains to an error below 0.1 %.",
        "§4.2",
        _cifar10("train_error", "<", "resnet1202-A", 0.1),
    ),
    Claim(
        "resnet-responds-less",
        "The layer responses of ResNets have smaller standard deviations than those of their plain counterparts.",
        "Figure 7",
        _cifar10("response_std", "<", "resnet20-A", "plain20") + _cifar10("response_std", "<", "resnet56-A", "plain56"),
    ),
    Claim(
        "deeper-resnet-responds-less",
        "The deeper the ResNet, the smaller its layer responses.",
        "Figure 7",
        _cifar10("response_std", ">", "resnet20-A", "resnet56-A", "resnet110-A"),
    ),
)


def differences(comparison: Comparison, results: Results) -> list[float]:
    """left - right for every seed that both have, in the order of the seeds; empty where one was not run."""
    left = results.get((comparison.left, comparison.metric), {})
    if isinstance(comparison.right, str):
        right = results.get((comparison.right, comparison.metric), {})
        return [left[seed] - right[seed] for seed in sorted(left.keys() & right.keys())]
    return [left[seed] - comparison.right for seed in sorted(left)]


def decide(comparison: Comparison, results: Results, interval: Interval) -> Verdict:
    """Whether left and right differ as claimed, by the confidence interval of the mean difference over seeds.

    One seed decides nothing, nor does an interval that has zero in it, nor one with NaN ends (a training diverged).
    """
    found = differences(comparison, results)
    if not found:
        return "not run"
    if len(found) == 1:
        return "not decided"
    low, high = interval(found)
    if high < 0:
        return "holds" if comparison.relation == "<" else "fails"
    if low > 0:
        return "holds" if comparison.relation == ">" else "fails"
    return "not decided"


def verdict(claim: Claim, results: Results, interval: Interval) -> Verdict:
    """Whether the claim holds: one comparison that fails refutes it; else all must be run, decided and hold.

    results: {(network name, metric): {seed: value}}, all of one protocol; the caller sees to it that it is the claim's.
    interval: from two or more paired differences to the ends of their mean's confidence interval, e.g. Student's at
    95 % by scipy, which this package does not need.
    """
    found = {decide(comparison, results, interval) for comparison in claim.comparisons}
    order: tuple[Verdict, ...] = ("fails", "not run", "not decided", "holds")
    return next(outcome for outcome in order if outcome in found)
