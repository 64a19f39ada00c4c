"""Summary of a test of a network: errors, per-class table, confusions, calibration. No torch here.

Everything is computed from one row an image, in the order of the data set, so that the digits do not depend on who
computed which row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from resnet.frozen import Frozen

TOP = 5
BINS = 15  # of confidence, of equal width: Guo et al. 2017, section 2


class ClassRow(Frozen):
    """A class of the data set. errors in percent of its `examples` images; None where it has none.

    confused_with: the class that its images were most often taken for, and how often.
    """

    label: int
    examples: int
    top1_error: float | None
    top5_error: float | None
    confused_with: int | None
    confused: int


class Bin(Frozen):
    """Images whose top score lies in (low, high]. confidence: mean of these scores; accuracy: share that is right."""

    low: float
    high: float
    examples: int
    confidence: float | None
    accuracy: float | None


class Summary(Frozen):
    """Errors in percent of `examples` images. loss: mean of -ln of the label's score; ece: expected calibration error.

    classes, bins: tables of both; confusions: (label, predicted, images) of all pairs that occur, also of label itself.
    """

    examples: int
    top1_error: float
    top5_error: float
    loss: float
    ece: float
    classes: tuple[ClassRow, ...]
    bins: tuple[Bin, ...]
    confusions: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Ranked:
    """labels: (N,); top: (N, 5) best classes, the best first; scores: (N, 5) theirs; of_label: (N,) the label's score.

    With fewer than 5 classes top and scores have as many columns.
    """

    labels: np.ndarray
    top: np.ndarray
    scores: np.ndarray
    of_label: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, labels: np.ndarray) -> Ranked:
        """From (N, K) scores; of equal scores the lower class comes first."""
        top = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
        return cls(labels, top, np.take_along_axis(scores, top, 1), scores[np.arange(len(labels)), labels])

    def summary(self) -> Summary:
        """All that is known of N >= 1 images."""
        right = self.top == self.labels[:, None]
        bins = reliability_bins(self.scores[:, 0], right[:, 0])
        gaps = (
            b.examples * abs(b.confidence - b.accuracy)
            for b in bins
            if b.confidence is not None and b.accuracy is not None
        )
        pairs, counts = np.unique(np.stack([self.labels, self.top[:, 0]], 1), axis=0, return_counts=True)
        confusions = tuple((int(a), int(b), int(n)) for (a, b), n in zip(pairs, counts, strict=True))
        return Summary(
            examples=len(self.labels),
            top1_error=percent_wrong(right[:, 0]),
            top5_error=percent_wrong(np.any(right, axis=1)),
            loss=float(-np.log(np.maximum(self.of_label, np.finfo(np.float64).tiny)).mean()),
            ece=sum(gaps) / len(self.labels),
            classes=_classes(self.labels, right, confusions),
            bins=bins,
            confusions=confusions,
        )


def percent_wrong(right: np.ndarray) -> float:
    """Share of images that are not right, in percent, by one division. right: (N,) bool, N >= 1."""
    return 100 * (len(right) - int(right.sum())) / len(right)


def reliability_bins(confidence: np.ndarray, right: np.ndarray) -> tuple[Bin, ...]:
    """Bins of a reliability diagram. confidence: (N,) in [0, 1]; right: (N,) bool."""
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    sums = np.bincount(place, weights=confidence, minlength=BINS), np.bincount(place, weights=right, minlength=BINS)
    return tuple(
        Bin(
            low=i / BINS,
            high=(i + 1) / BINS,
            examples=int(n),
            confidence=float(sums[0][i] / n) if n else None,
            accuracy=float(sums[1][i] / n) if n else None,
        )
        for i, n in enumerate(counts)
    )


def _classes(
    labels: np.ndarray, right: np.ndarray, confusions: tuple[tuple[int, int, int], ...]
) -> tuple[ClassRow, ...]:
    worst: dict[int, tuple[int, int]] = {}
    for label, predicted, count in confusions:
        if label != predicted and count > worst.get(label, (0, 0))[1]:
            worst[label] = predicted, count
    rows: list[ClassRow] = []
    for label in np.unique(labels).tolist():
        mine: np.ndarray = right[labels == label]
        taken, times = worst.get(label, (None, 0))
        top1, top5 = percent_wrong(mine[:, 0]), percent_wrong(np.any(mine, axis=1))
        rows.append(
            ClassRow(
                label=label, examples=len(mine), top1_error=top1, top5_error=top5, confused_with=taken, confused=times
            )
        )
    return tuple(rows)


class Response(Frozen):
    """A 3x3 layer and the standard deviation of its responses, over images, channels and places (Figure 7)."""

    layer: str
    std: float
