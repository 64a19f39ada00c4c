"""The claims of He et al. (arXiv 1512.03385) as comparisons and trends of networks. pipelines/verdicts.py judges them.

What the paper does not say in numbers, margins and bounds, is ours and says so in `note`.
"""

from collections.abc import Sequence
from itertools import pairwise

from resnet.claim_forms import Claim, Comparison, Family, Metric, Relation, Trend, alike, chain
from resnet.paper import Protocol


def _imagenet(
    metric: Metric, relation: Relation, *nets: str | float, protocol: Protocol = "10-crop"
) -> tuple[Comparison, ...]:
    return chain(metric, protocol, relation, *_named("imagenet", nets))


def _cifar10(metric: Metric, relation: Relation, *nets: str | float) -> tuple[Comparison, ...]:
    return chain(metric, "single", relation, *_named("cifar10", nets))


def _named(family: Family, nets: Sequence[str | float]) -> list[str | float]:
    return [f"{family}-{net}" if isinstance(net, str) else net for net in nets]


def _less(deep: str, other: str) -> tuple[Comparison, ...]:
    """Figure 7: a network's layers respond less than another's."""
    return _cifar10("response_median", "<", deep, other) + _cifar10("smaller_responses", ">", deep, other)


FULL_LR = "lr 0.1 from the start"
RESPONSES = (
    "Judged by the median over layers, and by the share of the layers, sorted by size as in the figure's lower half, "
    "in which the first network responds less: over a half with every seed, of two at least. The mean, which a few "
    "layers can carry, stands beside and decides nothing."
)

CLAIMS = (
    Claim(
        "imagenet-plain-degrades",
        "imagenet",
        "The 34-layer plain net has a higher validation error than the 18-layer plain net.",
        "Table 2",
        _imagenet("top1_error", ">", "plain34", "plain18"),
    ),
    Claim(
        "imagenet-plain-trains-worse",
        "imagenet",
        "The 34-layer plain net has a higher training error than the 18-layer plain net.",
        "Figure 4",
        _imagenet("train_error", ">", "plain34", "plain18"),
    ),
    Claim(
        "imagenet-gradients-are-healthy",
        "imagenet",
        "The gradients of the plain nets with batch norm have healthy norms.",
        "§4.1",
        _imagenet("gradient_imbalance", "<", "plain18", 1.0) + _imagenet("gradient_imbalance", "<", "plain34", 1.0),
        note="Healthy: before the first step the gradient norms of the first and the last convolution differ by less "
        "than a factor of 10, a bound of ours.",
    ),
    Claim(
        "imagenet-longer-is-no-cure",
        "imagenet",
        "With three times the iterations the 34-layer plain net still trains worse than the 18-layer one.",
        "§4.1, footnote 3",
        _imagenet("train_error", ">", "plain34", "plain18"),
        judged_in="three times the paper's iterations",
    ),
    Claim(
        "imagenet-resnet-gains",
        "imagenet",
        "The 34-layer ResNet is better than the 18-layer ResNet.",
        "Table 2",
        _imagenet("top1_error", "<", "resnet34-A", "resnet18-A"),
    ),
    Claim(
        "imagenet-resnet-trains-better",
        "imagenet",
        "The 34-layer ResNet has a lower training error than the 18-layer ResNet.",
        "Figure 4",
        _imagenet("train_error", "<", "resnet34-A", "resnet18-A"),
    ),
    Claim(
        "imagenet-18-comparable",
        "imagenet",
        "The 18-layer plain net and the 18-layer ResNet are comparably accurate.",
        "Table 2",
        alike("top1_error", "10-crop", 0.5, ("imagenet-resnet18-A", "imagenet-plain18")),
        note="Comparable: less than 0.5 points apart, a margin of ours (the paper has 0.06).",
    ),
    Claim(
        "imagenet-18-converges-faster",
        "imagenet",
        "The 18-layer ResNet converges faster than the 18-layer plain net.",
        "§4.1, Figure 4",
        _imagenet("early_error", "<", "resnet18-A", "plain18"),
        note="Faster: a lower validation error, the mean over the epochs of the first half of the training.",
    ),
    Claim(
        "residual-beats-plain",
        "imagenet",
        "The 34-layer ResNet is better than its plain counterpart.",
        "Table 2",
        _imagenet("top1_error", "<", "resnet34-A", "plain34"),
    ),
    Claim(
        "residual-trains-better-than-plain",
        "imagenet",
        "The 34-layer ResNet has a lower training error than its plain counterpart.",
        "§4.1, Figure 4",
        _imagenet("train_error", "<", "resnet34-A", "plain34"),
    ),
    Claim(
        "all-options-beat-plain",
        "imagenet",
        "Options A, B and C are all considerably better than the plain net.",
        "Table 3",
        _imagenet("top1_error", "<", "resnet34-A", "plain34")
        + _imagenet("top1_error", "<", "resnet34-B", "plain34")
        + _imagenet("top1_error", "<", "resnet34-C", "plain34"),
    ),
    Claim(
        "all-options-beat-plain-top5",
        "imagenet",
        "The same by top-5 error: options A, B and C are better than the plain net.",
        "Table 3",
        _imagenet("top5_error", "<", "resnet34-A", "plain34")
        + _imagenet("top5_error", "<", "resnet34-B", "plain34")
        + _imagenet("top5_error", "<", "resnet34-C", "plain34"),
    ),
    Claim(
        "b-beats-a",
        "imagenet",
        "B is slightly better than A.",
        "Table 3",
        _imagenet("top1_error", "<", "resnet34-B", "resnet34-A"),
    ),
    Claim(
        "c-beats-b",
        "imagenet",
        "C is slightly better than B.",
        "Table 3",
        _imagenet("top1_error", "<", "resnet34-C", "resnet34-B"),
    ),
    Claim(
        "options-differ-little",
        "imagenet",
        "The differences among A, B and C are small: projections are not essential.",
        "Table 3",
        alike(
            "top1_error",
            "10-crop",
            1.0,
            *pairwise(("imagenet-resnet34-A", "imagenet-resnet34-B", "imagenet-resnet34-C")),
            ("imagenet-resnet34-A", "imagenet-resnet34-C"),
        ),
        note="Small: less than 1 point apart, a margin of ours (the paper has 0.84 at most, and 3.5 to the plain net).",
    ),
    Claim(
        "bottleneck-beats-34",
        "imagenet",
        "The 50-layer ResNet is better than the best 34-layer ResNet.",
        "Table 3",
        _imagenet("top1_error", "<", "resnet50-B", "resnet34-C"),
    ),
    Claim(
        "bottleneck-beats-34-top5",
        "imagenet",
        "The same by top-5 error: the 50-layer ResNet is better than the best 34-layer ResNet.",
        "Table 3",
        _imagenet("top5_error", "<", "resnet50-B", "resnet34-C"),
    ),
    Claim(
        "deeper-is-better-10-crop",
        "imagenet",
        "The 152-layer ResNet is better than the 101-layer one, and that one than the 50-layer one.",
        "Table 3",
        _imagenet("top1_error", "<", "resnet152-B", "resnet101-B", "resnet50-B"),
    ),
    Claim(
        "deeper-is-better-10-crop-top5",
        "imagenet",
        "The same by top-5 error: 152 layers are better than 101, and 101 than 50.",
        "Table 3",
        _imagenet("top5_error", "<", "resnet152-B", "resnet101-B", "resnet50-B"),
    ),
    Claim(
        "deeper-is-better-multi-scale",
        "imagenet",
        "As single models at several scales, 152 layers are better than 101, 101 than 50, and 50 than 34.",
        "Table 4",
        _imagenet("top1_error", "<", "resnet152-B", "resnet101-B", "resnet50-B", "resnet34-C", protocol="multi-scale"),
    ),
    Claim(
        "deeper-is-better-multi-scale-top5",
        "imagenet",
        "The same by top-5 error, as single models at several scales.",
        "Table 4",
        _imagenet("top5_error", "<", "resnet152-B", "resnet101-B", "resnet50-B", "resnet34-C", protocol="multi-scale"),
    ),
    Claim(
        "152-is-cheaper-than-vgg",
        "imagenet",
        "The 152-layer ResNet costs fewer multiply-adds than VGG-16 and VGG-19.",
        "§3.3, Table 1",
        _imagenet("multiply_adds", "<", "resnet152-B", 15.3e9) + _imagenet("multiply_adds", "<", "resnet152-B", 19.6e9),
        note="Counted in the network itself; VGG's figures are the paper's.",
    ),
    Claim(
        "ensemble-wins",
        "imagenet",
        "An ensemble of ResNets has 3.57 % top-5 error on ImageNet's test set.",
        "Table 5",
        judged_in="nowhere",
        note="Cannot be run: the labels of ImageNet's test set are not public.",
    ),
    Claim(
        "detection-gains",
        "imagenet",
        "Deeper networks are better at detecting objects: ResNet-101 in place of VGG-16.",
        "Tables 7 and 8",
        judged_in="nowhere",
        note="Not here: this project classifies, it has no detector.",
    ),
    Claim(
        "cifar10-56-plain-degrades",
        "cifar10",
        "On CIFAR-10 the 56-layer plain net has a higher training error than the 20-layer one, and thus test error.",
        "Figure 1",
        _cifar10("train_error", ">", "plain56", "plain20") + _cifar10("top1_error", ">", "plain56", "plain20"),
    ),
    Claim(
        "cifar10-plain-degrades",
        "cifar10",
        "On CIFAR-10 the test error of plain nets grows with depth.",
        "Figure 6",
        _cifar10("top1_error", "<", "plain20", "plain32", "plain44", "plain56"),
    ),
    Claim(
        "cifar10-plain-trains-worse",
        "cifar10",
        "On CIFAR-10 the training error of plain nets grows with depth.",
        "Figure 6",
        _cifar10("train_error", "<", "plain20", "plain32", "plain44", "plain56"),
    ),
    Claim(
        "cifar10-plain-trend",
        "cifar10",
        "On CIFAR-10 the test error of plain nets grows with depth: the trend over all depths from 20 layers on.",
        "Figure 6",
        trend=Trend("none", "rises", "top1_error", "single", 20, 110),
    ),
    Claim(
        "cifar10-plain-trains-worse-trend",
        "cifar10",
        "On CIFAR-10 the training error of plain nets grows with depth: the trend over all depths from 20 layers on.",
        "Figure 6",
        trend=Trend("none", "rises", "train_error", "single", 20, 110),
    ),
    Claim(
        "cifar10-gradients-are-healthy",
        "cifar10",
        "The gradients of plain nets with batch norm have healthy norms.",
        "§4.1",
        _cifar10("gradient_imbalance", "<", "plain20", 1.0) + _cifar10("gradient_imbalance", "<", "plain56", 1.0),
        note="The paper says so of its ImageNet nets. Healthy: before the first step the gradient norms of the first "
        "and the last convolution differ by less than a factor of 10, a bound of ours.",
    ),
    Claim(
        "cifar10-plain110-is-lost",
        "cifar10",
        "The 110-layer plain net has a training and a test error above 60 % on CIFAR-10.",
        "Figure 6",
        _cifar10("train_error", ">", "plain110", 60.0) + _cifar10("top1_error", ">", "plain110", 60.0),
        judged_in="the paper's setting",
    ),
    Claim(
        "cifar10-56-resnet-gains",
        "cifar10",
        "On CIFAR-10 the 56-layer ResNet has a lower training error than the 20-layer one, and a lower test error.",
        "Figure 6",
        _cifar10("train_error", "<", "resnet56-A", "resnet20-A")
        + _cifar10("top1_error", "<", "resnet56-A", "resnet20-A"),
    ),
    Claim(
        "cifar10-resnet-overcomes",
        "cifar10",
        "On CIFAR-10 the 56-layer ResNet overcomes the difficulty: lower training and test error than the plain net.",
        "Figure 6",
        _cifar10("train_error", "<", "resnet56-A", "plain56") + _cifar10("top1_error", "<", "resnet56-A", "plain56"),
    ),
    Claim(
        "cifar10-resnet-gains",
        "cifar10",
        "On CIFAR-10 the test error of ResNets falls with depth, from 20 to 110 layers.",
        "Table 6",
        _cifar10("top1_error", ">", *(f"resnet{depth}-A" for depth in (20, 32, 44, 56, 110))),
    ),
    Claim(
        "cifar10-resnet-trend",
        "cifar10",
        "On CIFAR-10 the test error of ResNets falls with depth: the trend over all depths up to 110 layers.",
        "Table 6",
        trend=Trend("A", "falls", "top1_error", "single", 8, 110),
    ),
    Claim(
        "cifar10-110-beats-thin-and-deep",
        "cifar10",
        "ResNet-110 has fewer parameters than FitNet and Highway networks, and a lower test error.",
        "Table 6",
        _cifar10("top1_error", "<", "resnet110-A", 8.39)
        + _cifar10("top1_error", "<", "resnet110-A", 7.54)
        + _cifar10("parameters", "<", "resnet110-A", 2.5e6)
        + _cifar10("parameters", "<", "resnet110-A", 2.3e6),
        judged_in="the paper's setting",
        note="FitNet-19 has 8.39 % and 2.5M parameters, Highway-19 7.54 % and 2.3M, as Table 6 prints them.",
    ),
    Claim(
        "cifar10-110-needs-no-gentle-start",
        "cifar10",
        "ResNet-110 with lr 0.1 from the start reaches a similar accuracy.",
        "§4.2, footnote 5",
        alike("top1_error", "single", 0.5, (f"cifar10-resnet110-A@{FULL_LR}", "cifar10-resnet110-A")),
        note="Similar: less than 0.5 points apart, a margin of ours.",
    ),
    Claim(
        "cifar10-1202-overfits",
        "cifar10",
        "The 1202-layer ResNet has a higher test error than the 110-layer one.",
        "Table 6",
        _cifar10("top1_error", ">", "resnet1202-A", "resnet110-A"),
    ),
    Claim(
        "cifar10-1202-trains",
        "cifar10",
        "The 1202-layer ResNet trains to an error below 0.1 %.",
        "§4.2",
        _cifar10("train_error", "<", "resnet1202-A", 0.1),
        judged_in="the paper's setting",
    ),
    Claim(
        "cifar10-1202-trains-like-110",
        "cifar10",
        "The 1202-layer ResNet has a training error similar to that of the 110-layer one.",
        "§4.2",
        alike("train_error", "single", 0.5, ("cifar10-resnet1202-A", "cifar10-resnet110-A")),
        note="Similar: less than 0.5 points apart, a margin of ours, a third of the difference of their test errors.",
    ),
    Claim(
        "resnet-responds-less",
        "cifar10",
        "The layer responses of ResNets have smaller standard deviations than those of their plain counterparts.",
        "Figure 7",
        _less("resnet20-A", "plain20") + _less("resnet56-A", "plain56"),
        beside=_cifar10("response_mean", "<", "resnet20-A", "plain20")
        + _cifar10("response_mean", "<", "resnet56-A", "plain56"),
        note=RESPONSES,
    ),
    Claim(
        "deeper-resnet-responds-less",
        "cifar10",
        "The deeper the ResNet, the smaller its layer responses.",
        "Figure 7",
        _less("resnet56-A", "resnet20-A") + _less("resnet110-A", "resnet56-A"),
        beside=_cifar10("response_mean", ">", "resnet20-A", "resnet56-A", "resnet110-A"),
        note=RESPONSES,
    ),
)
