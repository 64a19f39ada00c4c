"""Verdicts on the paper's claims by the trainings of one setting: what holds, what fails, and what seeds leave open.

How: HOW in pipelines/reports/report_text.py says it to readers. A comparison is judged by differences paired by seed; a
claim holds if all its comparisons do (each at the two-sided level of 5 %, for a claim must pass every test), and fails
if one does the opposite at 5 % divided by their number (Bonferroni, for any of the tests may refute it).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from pipelines.reports.result_settings import Measured, Setting, kind, pair_name
from pipelines.reports.significance import (
    LEVEL,
    ImageByImage,
    Slope,
    equivalence_p,
    mcnemar,
    paired_interval,
    slope,
    trend_p,
    welch_interval,
)
from resnet.networks.architectures import FAMILIES, parse_network
from resnet.paper.claim_forms import COUNTED, Claim, Comparison, Trend
from resnet.paper.claims import CLAIMS

if TYPE_CHECKING:
    from resnet.networks.cost import Cost

Verdict = Literal["holds", "alike", "fails", "not decided", "not run"]
VERDICTS: tuple[Verdict, ...] = ("holds", "alike", "fails", "not decided", "not run")
Results = Mapping[tuple[str, str], Mapping[int, float]]  # (network name, metric) -> {seed: value}, of one protocol
HALF = 50.0  # percent of the layers


@dataclass(frozen=True)
class Evidence:
    """A comparison and what was found. differences: left - right by seed; left, right: of all seeds, paired or not."""

    comparison: Comparison
    differences: tuple[float, ...]
    left: tuple[float, ...]
    right: tuple[float, ...]
    verdict: Verdict

    @property
    def mean(self) -> float | None:
        """Of the differences; None: not run."""
        return statistics.fmean(self.differences) if self.differences else None

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the mean difference, paired by seed; NaN with one seed."""
        return paired_interval(self.differences) if len(self.differences) > 1 else (math.nan, math.nan)

    @property
    def welch(self) -> tuple[float, float]:
        """The same without pairs; NaN beside a fixed number."""
        return welch_interval(self.left, self.right)


@dataclass(frozen=True)
class TrendEvidence:
    """A trend and what was found. p, p_opposite: of Page's test, one-sided; None: too few depths or seeds."""

    trend: Trend
    depths: tuple[int, ...]
    seeds: int
    p: float | None
    p_opposite: float | None
    slope: Slope | None
    verdict: Verdict


@dataclass(frozen=True)
class Decision:
    """A claim of the paper, decided in one setting. beside: shown and not judged."""

    claim: Claim
    verdict: Verdict
    evidence: tuple[Evidence, ...] = ()
    beside: tuple[Evidence, ...] = ()
    trend: TrendEvidence | None = None


@dataclass(frozen=True)
class TwoNetworks:
    """Two trained networks of one seed, image by image: a statement on these two, not on their architectures."""

    left: str
    right: str
    seed: int
    found: ImageByImage


def decisions(setting: Setting | None, family: str) -> tuple[Decision, ...]:
    """Every claim about a family of networks. None: nothing was run."""
    return tuple(decision(setting, claim) for claim in CLAIMS if claim.family == family)


def decision(setting: Setting | None, claim: Claim) -> Decision:
    """One claim by the rows of one setting."""
    results = _results(setting, claim)
    if claim.trend is not None:
        found = judge_trend(claim.trend, results, claim.family)
        return Decision(claim, found.verdict, trend=found)
    number = len(claim.comparisons)
    evidence = tuple(evidence_of(c, results, number) for c in claim.comparisons)
    beside = tuple(evidence_of(c, results, number) for c in claim.beside)
    return Decision(claim, verdict(claim, results), evidence, beside)


def _results(setting: Setting | None, claim: Claim) -> Measured:
    """The rows by which a claim may be judged: none in a setting in which its figures mean nothing."""
    counted = _counts(claim) if setting is None or setting.is_papers else {}
    if setting is None or not _is_judged_in(setting, claim):
        return counted
    return setting.results(claim.protocol) | counted


def _is_judged_in(setting: Setting, claim: Claim) -> bool:
    if claim.judged_in == "the paper's setting":
        return setting.is_papers
    if claim.judged_in == "three times the paper's iterations":
        return setting.rows[0].total >= 3 * FAMILIES[setting.family].steps
    return claim.judged_in == "any setting"


def _counts(claim: Claim) -> Measured:
    """Multiply-adds and parameters that a claim names: of the networks themselves, so of every seed."""
    return {
        (c.left, c.metric): {0: float(getattr(counts(c.left), c.metric))}
        for c in claim.comparisons
        if c.metric in COUNTED
    }


@cache
def counts(network: str) -> Cost:
    """Counted once: 1202 layers take a second."""
    from resnet.networks.cost import count

    return count(network)


# --- Comparisons ------------------------------------------------------------------------------------------------------


def differences(comparison: Comparison, results: Results) -> list[float]:
    """left - right for every seed that both have, in the order of the seeds; empty where one was not run.

    For smaller_responses: the share of the layers less a half, in points.
    """
    left, right = comparison.left, comparison.right
    if comparison.metric == "smaller_responses":
        shares = results.get((pair_name(left, str(right)), comparison.metric), {})
        return [shares[seed] - HALF for seed in sorted(shares)]
    lefts = results.get((left, comparison.metric), {})
    if isinstance(right, str):
        rights = results.get((right, comparison.metric), {})
        return [lefts[seed] - rights[seed] for seed in sorted(lefts.keys() & rights.keys())]
    return [lefts[seed] - right for seed in sorted(lefts)]


def decide(comparison: Comparison, results: Results, comparisons: int = 1) -> Verdict:
    """True if left and right are as claimed. comparisons: of the claim, among which `fails` is corrected.

    One seed decides nothing, nor does an interval that has zero in it, nor one with NaN ends (a training diverged).
    """
    found = differences(comparison, results)
    if not found:
        return "not run"
    if comparison.metric in COUNTED:
        return "holds" if (found[0] < 0) == (comparison.relation == "<") else "fails"
    if len(found) < 2:
        return "not decided"
    if comparison.metric == "smaller_responses":  # a share may be the same with every seed: no interval then
        return "holds" if min(found) > 0 else "not decided"
    if comparison.relation == "~":
        return _decide_alike(found, comparison.margin or 0.0, comparisons)
    sign = 1 if comparison.relation == ">" else -1
    if _lowest(found, sign, 1 - LEVEL) > 0:
        return "holds"
    return "fails" if _lowest(found, -sign, 1 - LEVEL / comparisons) > 0 else "not decided"


def _lowest(found: Sequence[float], sign: int, confidence: float) -> float:
    """Lower end of the interval of the differences times a sign."""
    return paired_interval([sign * value for value in found], confidence)[0]


def _decide_alike(found: Sequence[float], margin: float, comparisons: int) -> Verdict:
    """Alike by two one-sided tests at 5 %; fails if the interval lies outside the margin."""
    if equivalence_p(found, margin) < LEVEL:
        return "alike"
    low, high = paired_interval(found, 1 - LEVEL / comparisons)
    return "fails" if low > margin or high < -margin else "not decided"


def verdict(claim: Claim, results: Results) -> Verdict:
    """All comparisons of a claim together; `alike` if that is all that it claims."""
    if claim.trend is not None:
        return judge_trend(claim.trend, results, claim.family).verdict
    found = {decide(c, results, len(claim.comparisons)) for c in claim.comparisons} or {"not run"}
    order: tuple[Verdict, ...] = ("fails", "not run", "not decided", "holds", "alike")
    return next(outcome for outcome in order if outcome in found)


def evidence_of(comparison: Comparison, results: Results, comparisons: int = 1) -> Evidence:
    """A comparison with its figures."""
    left = tuple(results.get((comparison.left, comparison.metric), {}).values())
    right = tuple(results.get((str(comparison.right), comparison.metric), {}).values())
    found = tuple(differences(comparison, results))
    return Evidence(comparison, found, left, right, decide(comparison, results, comparisons))


# --- Trends -----------------------------------------------------------------------------------------------------------


def judge_trend(trend: Trend, results: Results, family: str) -> TrendEvidence:
    """Page's test over the seeds that trained all depths; at 2.5 % on either side. The slope stands beside.

    Fewer than three depths are no trend; with fewer than two such seeds nothing is decided.
    """
    found = _by_depth(trend, results, family)
    depths = tuple(sorted(found))
    if len(depths) < 3:
        return TrendEvidence(trend, depths, 0, None, None, None, "not run")
    pairs = [(depth, error) for depth in depths for error in found[depth].values()]
    line = slope([depth for depth, _ in pairs], [error for _, error in pairs])
    seeds = sorted(set.intersection(*({*found[depth]} for depth in depths)))
    if len(seeds) < 2:
        return TrendEvidence(trend, depths, len(seeds), None, None, line, "not decided")
    blocks = [[found[depth][seed] for depth in depths] for seed in seeds]
    falls = trend.direction == "falls"
    p, opposite = trend_p(blocks, falls), trend_p(blocks, not falls)
    outcome: Verdict = "holds" if p < LEVEL / 2 else "fails" if opposite < LEVEL / 2 else "not decided"
    return TrendEvidence(trend, depths, len(seeds), p, opposite, line, outcome)


def _by_depth(trend: Trend, results: Results, family: str) -> dict[int, Mapping[int, float]]:
    found = {}
    for (name, metric), values in results.items():
        if metric == trend.metric and "@" not in name:
            network = parse_network(name)
            inside = trend.least <= network.depth <= trend.most
            if inside and network.family == family and kind(network) == trend.shortcut:
                found[network.depth] = values
    return found


# --- Two trained networks ---------------------------------------------------------------------------------------------


def image_by_image(setting: Setting, family: str) -> tuple[TwoNetworks, ...]:
    """McNemar's test for every two networks that a claim compares by error, seed by seed, by kept predictions."""
    asked = {
        (c.left, str(c.right)): None  # in the order of the claims
        for claim in CLAIMS
        if claim.family == family
        for c in claim.comparisons
        if c.metric == "top1_error" and isinstance(c.right, str)
    }
    return tuple(pair for left, right in asked for pair in _by_seed(setting, left, right))


def _by_seed(setting: Setting, left: str, right: str) -> list[TwoNetworks]:
    ours = {row.seed: row.final.are_right() for row in setting.of(left) if row.final is not None}
    others = {row.seed: row.final.are_right() for row in setting.of(right) if row.final is not None}
    seeds = [s for s in sorted(ours.keys() & others.keys()) if len(ours[s]) == len(others[s])]
    return [TwoNetworks(left, right, seed, mcnemar(ours[seed], others[seed])) for seed in seeds]
