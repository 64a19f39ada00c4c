"""Folds of a cross-validation: each image, or each whole group of images, is in exactly one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def folds_of_images(labels: np.ndarray, places: np.ndarray, folds: int) -> np.ndarray:
    """The fold of each image, 0 to folds - 1; of each class the folds hold as many images, but for one.

    labels: (N,); places: (N,), the images' positions in the drawing. Which folds hold one image more turns with the
    class, so that they hold as many images together, about.
    """
    order = np.lexsort((places, labels))
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    found = np.zeros(len(labels), np.int64)
    for number, mine in enumerate(np.split(order, starts[1:])):
        found[mine] = (np.arange(len(mine)) * folds // max(1, len(mine)) + number) % folds
    return found


def folds_of_groups(labels: np.ndarray, groups: Sequence[str], place: Callable[[str], bytes], folds: int) -> np.ndarray:
    """The fold of each image, 0 to folds - 1, so that groups stay whole: a group goes where its classes are rarest.

    Groups come by falling size and then by `place`, their position in the drawing. A class weighs by the share of its
    images that a fold has already, and among equal folds the one with the fewest images is taken.
    """
    names, index = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1), np.int64)
    np.add.at(counts, (index, labels), 1)
    weights = 1 / np.maximum(1, counts.sum(0)) ** 2.0
    have, sizes = np.zeros((folds, counts.shape[1]), np.int64), counts.sum(1)
    found = np.zeros(len(names), np.int64)
    for g in sorted(range(len(names)), key=lambda g: (-sizes[g], place(str(names[g])))):
        found[g] = np.lexsort((have.sum(1), have @ (weights * counts[g])))[0]
        have[found[g]] += counts[g]
    return found[index]


def require_classes_on_both_sides(labels: np.ndarray, found: np.ndarray, names: Sequence[str], whole: str) -> None:
    """ValueError: a class lies in one fold alone, so that it would be validated on without having been trained on.

    names: of the classes; whole: what is never parted, an image or a group.
    """
    pairs = np.unique(np.stack([labels, found], axis=1), axis=0)[:, 0]
    alone = np.flatnonzero(np.bincount(pairs, minlength=len(names)) == 1)
    if len(alone):
        raise ValueError(
            f"folds must have each class in two of them at least, all {int((labels == alone[0]).sum())} images of "
            f"{names[int(alone[0])]} are in one: it has too few {whole}s, or another --split-seed draws them apart"
        )
