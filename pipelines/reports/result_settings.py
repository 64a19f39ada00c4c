"""Rows of results in settings: which trainings may be compared with each other, and what they measured.

Two rows are comparable if they share their setting: the same recipe but for the network, the same data, the same
program. Figures of the paper stand beside ours only where the setting is the paper's own.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from resnet.networks.architectures import FAMILIES, Architecture, parse_network
from resnet.paper.cifar10_claims import FULL_LR
from resnet.paper.result_rows import DataSet, ResultRow
from resnet.recipes.recipe import Recipe

DATA_SETS = {name: family.title for name, family in FAMILIES.items()}
DATA_SETS |= {"digits": "the embedded digits", "cifar100": "CIFAR-100"}
# Aspects of a setting that two settings may differ in for a table of what each does by itself: ResultRow.aspects.
ABLATED = {
    "precision": "precision",
    "bn_batch": "batch norm's group",
    "gentle_start": "gentle start",
    "border": "border",
    "color": "colour",
    "engine": "program",
}
Measured = dict[tuple[str, str], dict[int, float]]  # (network, metric) -> {seed: value}


@dataclass(frozen=True)
class Setting:
    """Rows that may be compared with each other. siblings: what was done otherwise -> rows that differ in just that."""

    rows: tuple[ResultRow, ...]
    siblings: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def is_papers(self) -> bool:
        """True if the paper's figures may stand beside these."""
        return self.rows[0].is_papers_setting

    @property
    def family(self) -> str:
        """imagenet or cifar10."""
        return parse_network(self.rows[0].recipe.network).family

    @property
    def aspects(self) -> dict[str, Any]:
        """The settings that all rows share, by name."""
        return self.rows[0].aspects

    @property
    def networks(self) -> tuple[str, ...]:
        """Networks that were trained: plain nets first, then by depth and shortcut."""

        def order(name: str) -> tuple[bool, int, str]:
            network = parse_network(name)
            return network.shortcut != "none", network.depth, name

        return tuple(sorted({row.recipe.network for row in self.rows}, key=order))

    def kinds(self) -> dict[str, dict[int, str]]:
        """Shortcut -> {depth: network}, by depth; the networks of v1.5 apart."""
        found: defaultdict[str, dict[int, str]] = defaultdict(dict)
        for network in map(parse_network, self.networks):
            found[kind(network)][network.depth] = network.name
        return dict(found)

    def of(self, network: str) -> tuple[ResultRow, ...]:
        """The rows of a network, by seed."""
        return tuple(sorted((r for r in self.rows if r.recipe.network == network), key=lambda row: row.seed))

    def errors(self, network: str, protocol: str) -> tuple[list[float], list[float]]:
        """Top-1 and top-5 errors over seeds, by a protocol."""
        pairs = [row.errors(protocol) for row in self.of(network)]
        return [p[0] for p in pairs if p is not None], [p[1] for p in pairs if p is not None]

    @property
    def tests_are_final(self) -> bool:
        """True if the training error is that of finished networks, as it is where one training of these has it."""
        return any(row.final is not None for row in self.rows)

    def train_error(self, row: ResultRow) -> float | None:
        """The training error that claims go by; None: this training lacks what others of its setting have."""
        if self.tests_are_final:
            return None if row.final is None else row.final.train_error
        return row.train_error

    def results(self, protocol: str) -> Measured:
        """(network, metric) -> {seed: value}; errors by a protocol, all other metrics belong to every protocol.

        train_error: of the finished network where this setting's trainings have it, else the running one. Networks of
        siblings have `@` and the sibling's name behind theirs.
        """
        found: defaultdict[tuple[str, str], dict[int, float]] = defaultdict(dict)
        for row in self.rows:
            for metric, value in self._values(row, protocol).items():
                if value is not None:
                    found[row.recipe.network, metric][row.seed] = value
        for change, sibling in self.siblings.items():
            for (network, metric), values in sibling.results(protocol).items():
                found[f"{network}@{change}", metric] = values
        return dict(found) | self._shares()

    def _values(self, row: ResultRow, protocol: str) -> dict[str, float | None]:
        top1, top5 = row.errors(protocol) or (None, None)
        stds = [response.std for response in row.responses]
        return {
            "top1_error": top1,
            "top5_error": top5,
            "train_error": self.train_error(row),
            "early_error": early_error(row),
            "gradient_imbalance": gradient_imbalance(row),
            "response_median": statistics.median(stds) if stds else None,
            "response_mean": statistics.fmean(stds) if stds else None,
        }

    def _shares(self) -> Measured:
        """smaller_responses of every pair of networks, under `pair_name`."""
        stds = {(r.recipe.network, r.seed): [x.std for x in r.responses] for r in self.rows if r.responses}
        found: defaultdict[tuple[str, str], dict[int, float]] = defaultdict(dict)
        for left, seed in stds:
            for right in self.networks:
                if right != left and (right, seed) in stds:
                    share = smaller_share(stds[left, seed], stds[right, seed])
                    found[pair_name(left, right), "smaller_responses"][seed] = share
        return dict(found)


def kind(network: Architecture) -> str:
    """`none` for plain nets, else the shortcut, with the version where it is not the paper's."""
    return network.shortcut + (" v1.5" if network.v15 else "")


def pair_name(left: str, right: str) -> str:
    """Under which a measure of two networks together is kept."""
    return f"{left} and {right}"


def early_error(row: ResultRow) -> float | None:
    """Validation error, the mean over the epochs of the first half of the training; None: not in the row's curve."""
    errors = [e.top1_error for e in row.curve if e.step <= row.total / 2 and e.top1_error is not None]
    return statistics.fmean(errors) if errors else None


def gradient_ratios(row: ResultRow) -> dict[int, float]:
    """Step -> gradient norm of the first convolution over that of the last one, projections left out."""
    found = {}
    for norms in row.norms:
        gradients = [norm for name, (norm, _) in norms.layers.items() if "conv" in name]
        if len(gradients) > 1 and gradients[-1] > 0:
            found[norms.step] = gradients[0] / gradients[-1]
    return found


def gradient_imbalance(row: ResultRow) -> float | None:
    """|log10| of the ratio before the first step; None: not recorded."""
    ratio = gradient_ratios(row).get(0)
    return abs(math.log10(ratio)) if ratio else None


def smaller_share(left: Sequence[float], right: Sequence[float]) -> float:
    """Share of the sorted layers in which left is smaller, in percent. Of unequal depths: at equal quantiles."""
    places = (np.arange(min(len(left), len(right))) + 0.5) / min(len(left), len(right))
    few, many = (np.quantile(values, places, method="hazen") for values in (left, right))
    return 100 * float(np.mean(few < many))


def settings(rows: Iterable[ResultRow]) -> tuple[Setting, ...]:
    """Rows by setting: the paper's first, then those with the most rows. Of two rows of a run the later counts."""
    groups: defaultdict[str, dict[tuple[str, int], ResultRow]] = defaultdict(dict)
    for row in rows:
        groups[row.setting][row.recipe.network, row.seed] = row
    found = [Setting(tuple(group.values())) for group in groups.values()]
    found = [replace(setting, siblings=_siblings(setting, found)) for setting in found]
    return tuple(sorted(found, key=lambda s: (not s.is_papers, -len(s.rows), s.rows[0].setting)))


def _siblings(setting: Setting, others: Sequence[Setting]) -> dict[str, Setting]:
    """The name that claims ask for: the same without the gentle start that the paper gives 110 layers and more."""
    found = [s for s in others if differing(setting, s) == ["gentle_start"]]
    without = [s for s in found if setting.aspects["gentle_start"] == "the paper's" and not any(_gentle(s))]
    return {FULL_LR: without[0]} if without else {}


def _gentle(setting: Setting) -> Sequence[Any]:
    value = setting.aspects["gentle_start"]
    return [value] if isinstance(value, str) else value


def differing(one: Setting, other: Setting) -> list[str]:
    """Names of the aspects in which two settings differ. One that only one of them has is such a name."""
    return [name for name in {**one.aspects, **other.aspects} if one.aspects.get(name) != other.aspects.get(name)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """`8.75`, of several `8.61 ± 0.12`: mean and sample standard deviation; `-` of none."""
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def data_name(data: DataSet) -> str:
    """A data set's name as people write it."""
    return DATA_SETS.get(data.name, data.name)


def describe_setting(setting: Setting) -> str:
    """The setting as a sentence."""
    row = setting.rows[0]
    data = data_name(row.data)
    if row.data.train is not None and row.data.val is not None:
        data += f" ({row.data.train:,} training and {row.data.val:,} validation images)"
    program = {
        "ray": "the pipeline on Ray",
        "single": "benchmarks/training/single.py, one process without Ray",
        "torch": "benchmarks/training/plain_torch.py, torch's own loader and DDP without Ray",
    }[row.engine]
    machines = sorted({r.hardware for r in setting.rows})
    made = f"{_length(row)} on {data}, {schedule(row.recipe)}{gentle(setting)}"
    return f"{made}; made by {program} on {' and '.join(machines)}. {_arithmetic(row)}"


def particulars(setting: Setting) -> str:
    """`, bfloat16, batch norm over 64, gentle start`: what settings of one length differ in, as far as recorded."""
    row = setting.rows[0]
    found = [] if row.precision is None else [row.precision, f"batch norm over {row.bn_batch}"]
    if setting.aspects["gentle_start"] != "the paper's":
        found.append("gentle start" if any(_gentle(setting)) else "no gentle start")
    found += [f"{row.recipe.images.border} border"] if row.recipe.images.border != "black" else []
    found += [row.recipe.images.color] if row.recipe.images.color == "pca-std" else []
    return "".join(f", {part}" for part in found)


def gentle(setting: Setting) -> str:
    """`, after a gentle start with lr 0.01 until ...`; empty where it is the paper's."""
    value = setting.aspects["gentle_start"]
    if value == "the paper's":
        return ""
    lr, error = value
    if lr is None:
        return ", without the gentle start that the paper gives 110 layers and more"
    return f", after a gentle start with lr {lr:g} until the training error is below {error:g} %"


def _arithmetic(row: ResultRow) -> str:
    """Precision and batch norm's group in words, or that nobody wrote them down."""
    if row.precision is None:
        return "Precision and the images over which batch norm normalised were not recorded."
    test = ", the finished networks tested in float32" if row.final is not None else ""
    return f"Trained in {row.precision} with batch norm over {row.bn_batch} images{test}."


def _length(row: ResultRow) -> str:
    recipe = row.recipe
    steps = f"{row.total:,} steps of {recipe.optim.batch_size} images"
    return steps if recipe.epochs is None else f"{recipe.epochs:g} epochs ({steps})"


def schedule(recipe: Recipe) -> str:
    """The learning rate's course in words."""
    lr, plan = recipe.optim.lr, recipe.schedule
    warmup = f" after a warm-up of {100 * plan.warmup:.3g} % of it" if plan.warmup else ""
    if plan.kind == "cosine":
        return f"lr {lr:g} with a cosine to zero over the training{warmup}"
    if plan.kind == "plateau":
        return f"lr {lr:g}, times {plan.gamma:g} after {plan.patience} epochs without a lower error{warmup}"
    places = " and ".join(f"{100 * m:g} %" for m in plan.milestones)
    return f"lr {lr:g}, times {plan.gamma:g} at {places} of the training{warmup}"
