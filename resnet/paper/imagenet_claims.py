"""The claims of He et al. (arXiv 1512.03385) on ImageNet, as comparisons and trends of networks.

Margins and bounds that the paper does not give are ours, as `note` says.
"""

from itertools import pairwise

from resnet.paper.claim_forms import Claim, Comparison, Metric, Relation, alike, chain
from resnet.paper.published import Protocol


def _imagenet(
    metric: Metric, relation: Relation, *nets: str | float, protocol: Protocol = "10-crop"
) -> tuple[Comparison, ...]:
    return chain(metric, protocol, relation, *(f"imagenet-{net}" if isinstance(net, str) else net for net in nets))


IMAGENET_CLAIMS = (
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
)
