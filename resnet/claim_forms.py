"""The forms that a claim of the paper can take: comparisons of networks, and trends over depth."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from resnet.paper import Protocol

Family = Literal["imagenet", "cifar10"]
Metric = Literal[
    "top1_error",
    "top5_error",
    "train_error",
    "early_error",  # validation error, the mean over the epochs of the first half of the training
    "gradient_imbalance",  # |log10| of the first convolution's gradient norm over the last one's, before the first step
    "response_median",  # of the standard deviations of a network's layer responses
    "response_mean",
    "smaller_responses",  # share of the sorted layers in which left responds less than right, in percent
    "multiply_adds",
    "parameters",
]
Relation = Literal["<", ">", "~"]
Scope = Literal["any setting", "the paper's setting", "three times the paper's iterations", "nowhere"]
COUNTED: tuple[Metric, ...] = ("multiply_adds", "parameters")  # of the network itself: nothing is trained for them


@dataclass(frozen=True, slots=True)
class Comparison:
    """`metric` of network `left`, against that of network `right` or a fixed number in the metric's unit.

    relation `~`: they differ by less than `margin`, in the metric's unit. For smaller_responses the relation is between
    the share of layers and a half. A network's name may be followed by `@` and by what was trained otherwise.
    """

    left: str
    relation: Relation
    right: str | float
    metric: Metric
    protocol: Protocol
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Trend:
    """`metric` falls or rises with depth, over all networks of a kind that were trained, from `least` to `most` layers.

    shortcut: of the kind, `none` for plain nets.
    """

    shortcut: Literal["none", "A", "B", "C"]
    direction: Literal["falls", "rises"]
    metric: Metric
    protocol: Protocol
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of the paper, its table, figure or section, and the comparisons that must all hold for it to hold.

    trend: takes the place of comparisons; beside: shown and not judged; judged_in: where its figures mean something;
    note: what a reader must know of the way it is judged, or why it cannot be.
    """

    id: str
    family: Family
    sentence: str
    source: str
    comparisons: tuple[Comparison, ...] = ()
    trend: Trend | None = None
    beside: tuple[Comparison, ...] = ()
    judged_in: Scope = "any setting"
    note: str = ""

    @property
    def protocol(self) -> Protocol:
        """Of all its figures."""
        return self.trend.protocol if self.trend else self.comparisons[0].protocol if self.comparisons else "single"


def chain(metric: Metric, protocol: Protocol, relation: Relation, *networks: str | float) -> tuple[Comparison, ...]:
    """a > b > c as the comparisons of neighbours; only the last may be a number."""
    return tuple(Comparison(str(left), relation, right, metric, protocol) for left, right in pairwise(networks))


def alike(metric: Metric, protocol: Protocol, margin: float, *pairs: tuple[str, str]) -> tuple[Comparison, ...]:
    """Each pair of networks differs by less than a margin."""
    return tuple(Comparison(left, "~", right, metric, protocol, margin) for left, right in pairs)
