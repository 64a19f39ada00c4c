"""The figures of a classifier that teams read: by class and as a whole, each with an interval by bootstrap over groups.

A class is one against the rest. sensitivity: share of its images that are found; specificity: share of the others that
are not taken for it; precision: share of those taken for it that are it; auroc, average_precision: of its score;
threshold: the highest score at which the wished sensitivity is reached, with the specificity there. Groups of images,
such as those of a patient, are drawn with replacement (Efron 1979): images of a group are no independent ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from resnet.evaluation.error_summary import BINS
from resnet.frozen import Frozen

DRAWS = 1000
LEVEL = 95.0  # percent of the draws that lie inside an interval
AT_ONCE = 2**24  # numbers of a table of draws and images that is in memory at a time
FEW = 10  # images of a class, below which its figures say little


class Interval(Frozen):
    """A figure and the ends of its interval; all None where it is not defined, ends None where most draws lack it."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class ClassFigures(Frozen):
    """A class. images: of it in the split, groups: that they are of. threshold, specificity_there: for the sensitivity
    that was asked for."""

    label: int
    images: int
    groups: int
    sensitivity: Interval
    specificity: Interval
    precision: Interval
    auroc: Interval
    average_precision: Interval
    threshold: float | None
    specificity_there: Interval


class ClassifierFigures(Frozen):
    """A classifier on a split. Shares from 0 to 1; balanced_accuracy: mean of the classes' sensitivities; ece: expected
    calibration error; loss: mean of -ln of the label's score."""

    images: int
    groups: int
    accuracy: Interval
    balanced_accuracy: Interval
    auroc: Interval
    average_precision: Interval
    ece: Interval
    loss: Interval
    wished_sensitivity: float
    classes: tuple[ClassFigures, ...]


@dataclass(frozen=True)
class Answers:
    """scores: (N, K) of the data's classes; labels: (N,); predicted: (N,) the best output, K where it is none of the
    classes; group: (N,) numbers of groups, or of the images themselves."""

    scores: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    group: np.ndarray


def classifier_figures(
    answers: Answers, wished_sensitivity: float = 0.95, *, draws: int = DRAWS, seed: int = 0
) -> ClassifierFigures:
    """All figures. A pure function of the answers and the seed."""
    weights = drawn_weights(answers.group, draws, seed)  # first the images as they are, then the draws
    classes = range(answers.scores.shape[1])
    rows = [_of_class(answers, label, weights, wished_sensitivity) for label in classes]
    right = answers.predicted == answers.labels
    best = answers.scores.max(1)
    of_label = answers.scores[np.arange(len(best)), answers.labels]
    losses = -np.log(np.maximum(of_label, np.finfo(np.float64).tiny))
    tables = {name: np.stack([row[name] for row in rows]) for name in ("sensitivity", "auroc", "average_precision")}
    return ClassifierFigures(
        images=len(right),
        groups=len(np.unique(answers.group)),
        accuracy=_interval(_mean(weights, right)),
        balanced_accuracy=_interval(_class_mean(tables["sensitivity"])),
        auroc=_interval(_class_mean(tables["auroc"])),
        average_precision=_interval(_class_mean(tables["average_precision"])),
        ece=_interval(calibration_errors(weights, best, right)),
        loss=_interval(_mean(weights, losses)),
        wished_sensitivity=wished_sensitivity,
        classes=tuple(_class_figures(answers, label, rows[label]) for label in classes),
    )


def _class_figures(answers: Answers, label: int, row: dict[str, np.ndarray]) -> ClassFigures:
    mine = answers.labels == label
    threshold = float(row["threshold"][0])
    return ClassFigures(
        label=label,
        images=int(mine.sum()),
        groups=len(np.unique(answers.group[mine])),
        threshold=None if np.isnan(threshold) else threshold,
        **{name: _interval(values) for name, values in row.items() if name != "threshold"},
    )


def drawn_weights(group: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """The count of each image in a sample, (1 + draws, N): once each, then by groups drawn with replacement."""
    _, place = np.unique(group, return_inverse=True)
    count = int(place.max()) + 1
    rng = np.random.default_rng(seed)
    times = np.stack([np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(draws)])
    return np.concatenate([np.ones((1, len(group)), np.int32), times[:, place].astype(np.int32)])


def _of_class(answers: Answers, label: int, weights: np.ndarray, wished: float) -> dict[str, np.ndarray]:
    """Figures of a class for each sample, (1 + draws,); nan where one is not defined."""
    mine, taken = answers.labels == label, answers.predicted == label
    scores = answers.scores[:, label]
    threshold = threshold_for(scores[mine], wished)
    reached = scores >= threshold if threshold is not None else np.zeros(len(scores), bool)
    found = {
        "sensitivity": _share(weights, taken & mine, mine),
        "specificity": _share(weights, ~taken & ~mine, ~mine),
        "precision": _share(weights, taken & mine, taken),
        "specificity_there": _share(weights, ~reached & ~mine, ~mine) if threshold is not None else _nothing(weights),
        "threshold": np.full(1, np.nan if threshold is None else threshold),
    }
    auroc, precision = ranking_figures(weights, scores, mine)
    return found | {"auroc": auroc, "average_precision": precision}


def threshold_for(scores: np.ndarray, wished: float) -> float | None:
    """The highest threshold that so large a share of a class's scores reaches; None of a class without images."""
    if not len(scores):
        return None
    needed = max(1, int(np.ceil(wished * len(scores) - 1e-9)))
    return float(np.sort(scores)[::-1][needed - 1])


def ranking_figures(weights: np.ndarray, scores: np.ndarray, mine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve and average precision of each sample, (samples,) each; nan without images of a side.

    As scikit-learn's roc_auc_score and average_precision_score with sample_weight, for many weights at once.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # the last of each run of equal scores
    auroc, precision = [], []
    for part in np.array_split(weights, -(-weights.size // AT_ONCE)):
        found = part[:, order].astype(np.float64)
        true = np.cumsum(found * mine[order], axis=1)[:, ends]
        false = np.cumsum(found * ~mine[order], axis=1)[:, ends]
        with np.errstate(divide="ignore", invalid="ignore"):
            tpr, fpr = true / true[:, -1:], false / false[:, -1:]
            steps, means = np.diff(fpr, prepend=0.0), tpr - np.diff(tpr, prepend=0.0) / 2
            auroc.append((steps * means).sum(1))
            shares = np.where(true + false > 0, true / np.maximum(true + false, 1), 0.0)
            precision.append((np.diff(tpr, prepend=0.0) * shares).sum(1))
    return np.concatenate(auroc), np.concatenate(precision)


def calibration_errors(weights: np.ndarray, confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Expected calibration error of each sample, (samples,), over bins of equal width."""
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    inside = (place[:, None] == np.arange(BINS)).astype(np.float64)
    gap = np.abs(weights @ (inside * (confidence - right)[:, None]))
    return gap.sum(1) / weights.sum(1)


def _share(weights: np.ndarray, some: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Weight of some images over that of others, for each sample; nan over nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (weights @ some.astype(np.float64)) / (weights @ of.astype(np.float64))


def _mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    return weights @ values.astype(np.float64) / weights.sum(1)


def _class_mean(table: np.ndarray) -> np.ndarray:
    """Mean over the classes that a sample has; (K, samples) -> (samples,)."""
    there = ~np.isnan(table)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(there, table, 0.0).sum(0) / there.sum(0)


def _nothing(weights: np.ndarray) -> np.ndarray:
    return np.full(len(weights), np.nan)


def _interval(samples: np.ndarray) -> Interval:
    """The first value, and the range of the others' middle part; none where a tenth of the draws lack the figure."""
    value, drawn = float(samples[0]), samples[1:][~np.isnan(samples[1:])]
    if np.isnan(value):
        return Interval()
    if len(drawn) < 0.9 * (len(samples) - 1) or not len(drawn):
        return Interval(value=value)
    edge = (100 - LEVEL) / 2
    low, high = np.percentile(drawn, [edge, 100 - edge])
    return Interval(value=value, low=float(low), high=float(high))


def few(figures: ClassifierFigures, names: Sequence[str]) -> list[str]:
    """Classes with fewer images than figures need, with their numbers."""
    return [f"{names[row.label]} ({row.images})" for row in figures.classes if row.images < FEW]
