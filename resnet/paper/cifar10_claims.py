"""The claims of He et al. (arXiv 1512.03385) on CIFAR-10, as comparisons and trends of networks.

Margins and bounds that the paper does not give are ours, as `note` says.
"""

from resnet.paper.claim_forms import Claim, Comparison, Metric, Relation, Trend, alike, chain


def _cifar10(metric: Metric, relation: Relation, *nets: str | float) -> tuple[Comparison, ...]:
    return chain(metric, "single", relation, *(f"cifar10-{net}" if isinstance(net, str) else net for net in nets))


def _less(deep: str, other: str) -> tuple[Comparison, ...]:
    """Figure 7: a network's layers respond less than another's."""
    return _cifar10("response_median", "<", deep, other) + _cifar10("smaller_responses", ">", deep, other)


FULL_LR = "lr 0.1 from the start"
RESPONSES = (
    "Judged by the median over layers, and by the share of the layers, sorted by size as in the figure's lower half, "
    "in which the first network responds less: over a half with every seed, of two at least. The mean, which a few "
    "layers can carry, stands beside and decides nothing."
)

CIFAR10_CLAIMS = (
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
