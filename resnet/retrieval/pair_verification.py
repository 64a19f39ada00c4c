"""Verification: are two images of one person? Accuracy in ten folds, TAR at FAR, and recall at k of retrieval.

As on LFW (Huang et al. 2007): a pair is accepted where its cosine similarity reaches a threshold; that of a fold is
the best of the other nine. Persons are dealt into folds, so that no person is in two of them, and each fold has as
many pairs of one person as of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FOLDS = 10


@dataclass(frozen=True)
class Verification:
    """accuracy, std: of the folds, in percent; tar: at each FAR, in percent; roc: FAR and TAR, rising; pairs: all."""

    accuracy: float
    std: float
    folds: tuple[float, ...]
    tar: dict[float, float]
    far: np.ndarray
    tar_at: np.ndarray
    same_pairs: int
    other_pairs: int


def all_pairs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair of images: first, second (indices), and True where they are of one person."""
    first, second = np.triu_indices(len(labels), 1)
    return first, second, labels[first] == labels[second]


def best_threshold(scores: np.ndarray, same: np.ndarray) -> float:
    """The threshold of the highest accuracy, `score >= threshold` being accepted; the middle between two scores."""
    order = np.argsort(-scores, kind="stable")
    gained = np.cumsum(np.where(same[order], 1, -1))
    sorted_scores = scores[order]
    last_of_equals = np.append(sorted_scores[1:] != sorted_scores[:-1], True)
    gained = np.where(last_of_equals, gained, np.iinfo(np.int64).min)
    at = int(np.argmax(gained))
    if gained[at] <= 0:
        return float(sorted_scores[0]) + 1e-6  # accept none
    below = sorted_scores[at + 1] if at + 1 < len(scores) else sorted_scores[at]
    return float((sorted_scores[at] + below) / 2)


def roc(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FAR and TAR at each threshold, from that which accepts none to that which accepts all."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.nonzero(np.diff(scores[order]))[0], len(scores) - 1)
    accepted, right = ends + 1, np.cumsum(same[order])[ends]
    far, tar = (accepted - right) / max(1, (~same).sum()), right / max(1, same.sum())
    return np.append(0.0, far), np.append(0.0, tar)


def verify_pairs(
    embeddings: np.ndarray, labels: np.ndarray, fars: Sequence[float] = (0.1, 0.01, 0.001), seed: int = 0
) -> Verification:
    """The verification of all pairs. embeddings: (N, C) of length 1; labels: (N,) persons.

    ValueError: fewer than 2 persons a fold, or no person with two images.
    """
    persons = np.unique(labels)
    folds = min(FOLDS, len(persons) // 2)
    if folds < 2:
        raise ValueError(f"images must be of at least 4 persons, got {len(persons)}")
    first, second, same = all_pairs(labels)
    if not same.any():
        raise ValueError("images must hold at least one person with two images, got one image of each")
    scores = np.einsum("nc,nc->n", embeddings[first], embeddings[second])
    rng = np.random.default_rng(seed)
    dealt = dict(zip(rng.permutation(persons).tolist(), np.arange(len(persons)) % folds, strict=True))
    fold = np.array([dealt[label] for label in labels.tolist()])
    chosen = [_balanced(first, second, same, fold, number, rng) for number in range(folds)]
    accuracies = []
    for number in range(folds):
        others = np.concatenate([pairs for at, pairs in enumerate(chosen) if at != number])
        threshold = best_threshold(scores[others], same[others])
        right = (scores[chosen[number]] >= threshold) == same[chosen[number]]
        accuracies.append(100 * float(right.mean()))
    far, tar = roc(scores, same)
    at = {each: 100 * float(tar[np.searchsorted(far, each, side="right") - 1]) for each in fars}
    mean, std = float(np.mean(accuracies)), float(np.std(accuracies))
    return Verification(mean, std, tuple(accuracies), at, far, tar, int(same.sum()), int((~same).sum()))


def _balanced(
    first: np.ndarray, second: np.ndarray, same: np.ndarray, fold: np.ndarray, number: int, rng: np.random.Generator
) -> np.ndarray:
    """The pairs of a fold: as many of one person as of two."""
    inside = (fold[first] == number) & (fold[second] == number)
    ones, twos = np.nonzero(inside & same)[0], np.nonzero(inside & ~same)[0]
    count = min(len(ones), len(twos))
    return np.concatenate([rng.permutation(ones)[:count], rng.permutation(twos)[:count]])


def recall_at(embeddings: np.ndarray, labels: np.ndarray, counts: Sequence[int] = (1, 5)) -> dict[int, float]:
    """Percent of images among whose k nearest others one has their label. embeddings: (N, C) of length 1."""
    most = min(max(counts), len(labels) - 1)
    hits = np.zeros(most)
    for start in range(0, len(labels), 1024):
        similar = embeddings[start : start + 1024] @ embeddings.T
        similar[np.arange(len(similar)), np.arange(start, start + len(similar))] = -np.inf  # itself
        nearest = np.argsort(-similar, axis=1, kind="stable")[:, :most]
        right = labels[nearest] == labels[start : start + len(similar), None]
        hits += np.maximum.accumulate(right, axis=1).sum(0)
    return {count: 100 * float(hits[min(count, most) - 1]) / len(labels) for count in counts}
