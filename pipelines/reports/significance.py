"""Statistical tests of results over seeds, by scipy: intervals, equivalence, trends over depth, two networks by image.

Differences and errors are in the metric's unit, mostly percentage points. NaN stands where a figure is not defined.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

LEVEL = 0.05  # of two-sided tests; one-sided ones have half of it, but for equivalence
NOT_DEFINED = (math.nan, math.nan)
MOST_SEEDS = 1000  # that seeds_needed looks for


def paired_interval(differences: Sequence[float], confidence: float = 1 - LEVEL) -> tuple[float, float]:
    """Student's confidence interval of the mean of paired differences.

    Equal differences have no spread to judge by: with two or three seeds that is chance, and decides nothing.
    """
    from scipy import stats

    error = stats.sem(differences) if len(set(differences)) > 1 else 0
    if error == 0:
        return NOT_DEFINED
    low, high = stats.t.interval(confidence, len(differences) - 1, statistics.fmean(differences), error)
    return float(low), float(high)


def welch_interval(left: Sequence[float], right: Sequence[float]) -> tuple[float, float]:
    """Welch's confidence interval of the difference of two means: seeds not paired, spreads not taken as equal."""
    from scipy import stats

    if min(len(left), len(right)) < 2 or len(set(left)) == len(set(right)) == 1:
        return NOT_DEFINED
    found = stats.ttest_ind(left, right, equal_var=False).confidence_interval(1 - LEVEL)
    return float(found.low), float(found.high)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's confidence interval of a mean over seeds."""
    return paired_interval(values)


def half_width(std: float, seeds: int) -> float:
    """Of the paired interval for so many seeds and a standard deviation of the differences: what they can decide."""
    from scipy import stats

    return float(stats.t.ppf(1 - LEVEL / 2, seeds - 1)) * std / math.sqrt(seeds)


def seeds_needed(differences: Sequence[float]) -> int | None:
    """Fewest seeds whose interval would not hold zero at these differences' mean and deviation; None: over 1,000."""
    mean, std = abs(statistics.fmean(differences)), statistics.stdev(differences)
    return next((n for n in range(2, MOST_SEEDS + 1) if half_width(std, n) < mean), None)


def equivalence_p(differences: Sequence[float], margin: float) -> float:
    """Two one-sided t-tests (TOST): the larger p of "the mean is above -margin" and "it is below margin"."""
    from scipy import stats

    if len(set(differences)) < 2:
        return math.nan
    above: Any = stats.ttest_1samp(differences, -margin, alternative="greater")
    below: Any = stats.ttest_1samp(differences, margin, alternative="less")
    return float(max(above.pvalue, below.pvalue))


def trend_p(blocks: Sequence[Sequence[float]], falls: bool) -> float:
    """Page's test, one-sided: the p-value of no trend. blocks: (seeds, depths), two and three at least."""
    from scipy import stats

    values = np.asarray(blocks, dtype=float)
    ranks = np.arange(1, values.shape[1] + 1)
    return float(stats.page_trend_test(values, predicted_ranks=ranks[::-1] if falls else ranks).pvalue)


class Slope(NamedTuple):
    """Of an error against the binary logarithm of the depth: points a doubling, and its confidence interval."""

    value: float
    low: float
    high: float


def slope(depths: Sequence[int], errors: Sequence[float]) -> Slope | None:
    """Linear regression of errors on log2 of the depths, a pair a training. None: fewer than three trainings."""
    from scipy import stats

    if len(errors) < 3 or len(set(depths)) < 2:
        return None
    found: Any = stats.linregress(np.log2(depths), errors)
    half = stats.t.ppf(1 - LEVEL / 2, len(errors) - 2) * found.stderr
    return Slope(float(found.slope), float(found.slope - half), float(found.slope + half))


class ImageByImage(NamedTuple):
    """McNemar's exact test. only_left, only_right: images that only one of two networks gets right."""

    only_left: int
    only_right: int
    p: float


def mcnemar(left: np.ndarray, right: np.ndarray) -> ImageByImage:
    """True if two trained networks err differently often. left, right: (N,) bool, right or not, the same images."""
    from scipy import stats

    only_left, only_right = int((left & ~right).sum()), int((right & ~left).sum())
    differing = only_left + only_right
    p = float(stats.binomtest(only_left, differing).pvalue) if differing else 1.0
    return ImageByImage(only_left, only_right, p)
