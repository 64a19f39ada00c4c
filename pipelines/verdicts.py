"""Rows of results as comparisons: which rows may be compared, mean ± std over seeds, and what they decide.

Two rows are comparable if they share their setting: the same recipe but for the network, the same data, the same
program. Figures of the paper stand beside ours only where the setting is the paper's own.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from resnet.claims import CLAIMS, Claim, Comparison, Verdict, decide, differences, verdict
from resnet.recipe import Recipe
from resnet.results import DataSet, ResultRow
from resnet.table import parse

CONFIDENCE = 0.95
FAMILIES = {"cifar10": "CIFAR-10", "imagenet": "ImageNet"}
DATA_SETS = FAMILIES | {"digits": "the embedded digits", "cifar100": "CIFAR-100"}


@dataclass(frozen=True)
class Setting:
    """Rows that may be compared with each other."""

    rows: tuple[ResultRow, ...]

    @property
    def is_papers(self) -> bool:
        """Whether the paper's figures may stand beside these."""
        return self.rows[0].is_papers_setting

    @property
    def family(self) -> str:
        """imagenet or cifar10."""
        return parse(self.rows[0].recipe.network).family

    @property
    def networks(self) -> tuple[str, ...]:
        """What was trained: plain nets first, then by depth and shortcut."""

        def order(name: str) -> tuple[bool, int, str]:
            network = parse(name)
            return network.shortcut != "none", network.depth, name

        return tuple(sorted({row.recipe.network for row in self.rows}, key=order))

    def of(self, network: str) -> tuple[ResultRow, ...]:
        """The rows of a network, by seed."""
        return tuple(sorted((r for r in self.rows if r.recipe.network == network), key=lambda row: row.seed))

    def errors(self, network: str, protocol: str) -> tuple[list[float], list[float]]:
        """Top-1 and top-5 errors over seeds, by a protocol."""
        pairs = [row.errors(protocol) for row in self.of(network)]
        return [p[0] for p in pairs if p is not None], [p[1] for p in pairs if p is not None]

    @property
    def tests_are_final(self) -> bool:
        """Whether the training error is that of finished networks, as it is where one training of these has it."""
        return any(row.final is not None for row in self.rows)

    def train_error(self, row: ResultRow) -> float | None:
        """The training error that claims go by; None: this training lacks what others of its setting have."""
        if self.tests_are_final:
            return None if row.final is None else row.final.train_error
        return row.train_error

    def results(self, protocol: str) -> dict[tuple[str, str], dict[int, float]]:
        """(network, metric) -> {seed: value}; train_error and response_std belong to every protocol.

        train_error: of the finished network where this setting's trainings have it, else the running one.
        """
        found: defaultdict[tuple[str, str], dict[int, float]] = defaultdict(dict)
        for row in self.rows:
            name = row.recipe.network
            if (train_error := self.train_error(row)) is not None:
                found[name, "train_error"][row.seed] = train_error
            if row.responses:
                found[name, "response_std"][row.seed] = statistics.fmean(r.std for r in row.responses)
            if (errors := row.errors(protocol)) is not None:
                found[name, "top1_error"][row.seed], found[name, "top5_error"][row.seed] = errors
        return found


def settings(rows: Iterable[ResultRow]) -> tuple[Setting, ...]:
    """Rows by setting: the paper's first, then those with the most rows. Of two rows of a run the later counts."""
    groups: defaultdict[str, dict[tuple[str, int], ResultRow]] = defaultdict(dict)
    for row in rows:
        groups[row.setting][row.recipe.network, row.seed] = row
    found = [Setting(tuple(group.values())) for group in groups.values()]
    return tuple(sorted(found, key=lambda s: (not s.is_papers, -len(s.rows), s.rows[0].setting)))


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Student's confidence interval of the mean of paired differences, by scipy; NaN where it is not defined.

    Equal differences have no spread to judge by: with two or three seeds that is chance, and decides nothing.
    """
    from scipy import stats

    error = stats.sem(differences) if len(set(differences)) > 1 else 0
    if error == 0:
        return float("nan"), float("nan")
    mean = statistics.fmean(differences)
    low, high = stats.t.interval(CONFIDENCE, len(differences) - 1, mean, error)
    return float(low), float(high)


@dataclass(frozen=True)
class Evidence:
    """A comparison and what was found: paired differences left - right over `n` seeds, their mean and its interval."""

    comparison: Comparison
    n: int
    mean: float | None
    low: float | None
    high: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Decision:
    """A claim of the paper, decided in one setting."""

    claim: Claim
    verdict: Verdict
    evidence: tuple[Evidence, ...]


def decisions(setting: Setting | None, family: str) -> tuple[Decision, ...]:
    """Every claim about a family of networks. None: nothing was run."""
    return tuple(decision(setting, claim) for claim in CLAIMS if claim.comparisons[0].left.startswith(f"{family}-"))


def decision(setting: Setting | None, claim: Claim) -> Decision:
    """One claim by the rows of one setting."""
    results = {} if setting is None else setting.results(claim.comparisons[0].protocol)
    return Decision(claim, verdict(claim, results, interval), tuple(_evidence(c, results) for c in claim.comparisons))


def _evidence(comparison: Comparison, results: Mapping[tuple[str, str], Mapping[int, float]]) -> Evidence:
    found = differences(comparison, results)
    low, high = interval(found) if len(found) > 1 else (None, None)
    mean = statistics.fmean(found) if found else None
    return Evidence(comparison, len(found), mean, low, high, decide(comparison, results, interval))


def spread(values: Sequence[float], digits: int = 2) -> str:
    """`8.75`, of several `8.61 ± 0.12`: mean and sample standard deviation; `-` of none."""
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def data_name(data: DataSet) -> str:
    """A data set's name as people write it."""
    return DATA_SETS.get(data.name, data.name)


def describe(setting: Setting) -> str:
    """The setting as a sentence."""
    row = setting.rows[0]
    data = data_name(row.data)
    if row.data.train is not None and row.data.val is not None:
        data += f" ({row.data.train:,} training and {row.data.val:,} validation images)"
    program = {
        "ray": "the pipeline on Ray",
        "single": "benchmarks/single.py, one process without Ray",
        "torch": "benchmarks/plain_torch.py, torch's own loader and DDP without Ray",
    }[row.engine]
    machines = sorted({r.hardware for r in setting.rows})
    made = f"{_length(row)} on {data}, {schedule(row.recipe)}; made by {program} on {' and '.join(machines)}."
    return f"{made} {_arithmetic(row)}"


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
    warmup = f" after a warm-up of {100 * plan.warmup:g} % of it" if plan.warmup else ""
    if plan.kind == "cosine":
        return f"lr {lr:g} with a cosine to zero over the training{warmup}"
    if plan.kind == "plateau":
        return f"lr {lr:g}, times {plan.gamma:g} after {plan.patience} epochs without a lower error{warmup}"
    places = " and ".join(f"{100 * m:g} %" for m in plan.milestones)
    return f"lr {lr:g}, times {plan.gamma:g} at {places} of the training{warmup}"
