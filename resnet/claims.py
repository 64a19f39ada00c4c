"""The claims of He et al. (arXiv 1512.03385) as comparisons of networks, and how results over seeds decide them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from resnet.paper import Protocol

Metric = Literal["top1_error", "top5_error", "train_error", "response_std"]
Relation = Literal["<", ">"]
Verdict = Literal["holds", "fails", "not decided", "not run"]
Results = Mapping[tuple[str, str], Mapping[int, float]]  # (network name, metric) -> {seed: value}, of one protocol
# Two or more differences -> the confidence interval of their mean
Interval = Callable[[Sequence[float]], tuple[float, float]]


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
    return chain(metric, "single", relation, *names)


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
        "cifar10-56-plain-degrades",
        "On CIFAR-10 the 56-layer plain net has a higher training error than the 20-layer one, and thus test error.",
        "Figure 1",
        _cifar10("train_error", ">", "plain56", "plain20") + _cifar10("top1_error", ">", "plain56", "plain20"),
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
        "cifar10-56-resnet-gains",
        "On CIFAR-10 the 56-layer ResNet has a lower training error than the 20-layer one, and a lower test error.",
        "Figure 6",
        _cifar10("train_error", "<", "resnet56-A", "resnet20-A")
        + _cifar10("top1_error", "<", "resnet56-A", "resnet20-A"),
    ),
    Claim(
        "cifar10-resnet-overcomes",
        "On CIFAR-10 the 56-layer ResNet overcomes the difficulty: lower training and test error than the plain net.",
        "Figure 6",
        _cifar10("train_error", "<", "resnet56-A", "plain56") + _cifar10("top1_error", "<", "resnet56-A", "plain56"),
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
