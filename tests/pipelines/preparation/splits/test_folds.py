"""Folds: each image, or each whole group, in exactly one; classes spread over all of them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.preparation.splits.drawn_splits import Drawing
from pipelines.preparation.splits.folds import folds_of_groups, folds_of_images, require_classes_on_both_sides
from tests.pipelines.preparation.sources_on_disk import CATS, fill, keys, listing_of, picture, refused

LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=80)


def place(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


@settings(max_examples=100, deadline=None)
@given(LABELS, st.integers(2, 6), st.integers(0, 2**32))
def test_each_class_is_spread_evenly_whatever_the_order_of_the_images(labels: list[int], folds: int, seed: int) -> None:
    mine, rng = np.asarray(labels), np.random.default_rng(seed)
    places = rng.permutation(len(mine)).astype(np.uint64)
    found = folds_of_images(mine, places, folds)
    for label in set(labels):
        counts = np.bincount(found[mine == label], minlength=folds)
        assert len(counts) == folds
        assert counts.max() - counts.min() <= 1
    order = rng.permutation(len(mine))
    assert folds_of_images(mine[order], places[order], folds).tolist() == found[order].tolist()


@settings(max_examples=100, deadline=None)
@given(LABELS, st.integers(2, 6), st.integers(0, 2**32))
def test_groups_stay_whole_whatever_the_order_of_the_images(labels: list[int], folds: int, seed: int) -> None:
    mine, rng = np.asarray(labels), np.random.default_rng(seed)
    groups = [f"g{g}" for g in rng.integers(0, max(2, len(labels) // 3), len(labels))]
    found = folds_of_groups(mine, groups, place, folds)
    assert set(found.tolist()) <= set(range(folds))
    assert len({(group, fold) for group, fold in zip(groups, found.tolist(), strict=True)}) == len(set(groups))
    order = rng.permutation(len(mine))
    again = folds_of_groups(mine[order], [groups[i] for i in order], place, folds)
    assert again.tolist() == found[order].tolist()


def test_equal_groups_give_equal_folds() -> None:
    """Twelve patients of two classes, five images each: each of three folds gets two patients of each class."""
    labels = np.repeat([0, 1], 30)
    groups = [f"p{i // 5}" for i in range(60)]
    found = folds_of_groups(labels, groups, place, 3)
    assert np.bincount(3 * labels + found).tolist() == [10] * 6


def test_a_class_of_one_group_is_refused() -> None:
    with pytest.raises(ValueError, match=r"all 2 images of b are in one: it has too few groups"):
        require_classes_on_both_sides(np.asarray([0, 0, 1, 1]), np.asarray([0, 1, 1, 1]), ["a", "b"], "group")
    require_classes_on_both_sides(np.asarray([0, 0]), np.asarray([0, 1]), ["a", "without images"], "image")


@pytest.mark.parametrize("part", [None, 2])
def test_each_image_is_in_exactly_one_val(part: int | None, tmp_path: Path) -> None:
    """Of 30 pictures of six patients, written in two orders; test is the same in all folds."""
    drawn = []
    for name, order in (("a", 1), ("b", -1)):
        for i in range(30)[::order]:
            for label, cat in enumerate(CATS):
                folder = tmp_path / name / cat / f"patient{label}{i // 5}"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{i}.png").write_bytes(picture(100 * label + i))
        share = 0.2 if part is None else None
        drawing = Drawing(folds=3, test_share=share, seed=4).model_copy(
            update={"group": Drawing().group.model_copy(update={"part": part})}
        )
        drawn.append([listing_of(tmp_path / name, drawing.model_copy(update={"fold": n})) for n in (1, 2, 3)])
    vals = [sorted(keys(listing, "val")) for listing in drawn[0]]
    assert vals == [sorted(keys(listing, "val")) for listing in drawn[1]], "whatever the order of listing"
    every = sorted(key for val in vals for key in val)
    tests = {tuple(sorted(keys(listing, "test"))) if part is None else () for listing in drawn[0]}
    assert len(tests) == 1
    assert len(set(every)) == len(every) == 60 - len(next(iter(tests))) == (48 if part is None else 60)
    for listing, val in zip(drawn[0], vals, strict=True):
        assert sorted([*keys(listing), *val]) == every, "what is not val is train"
        assert np.bincount(listing.splits["val"]["label"].to_numpy()).tolist() == [len(val) // 2] * 2
        if part is not None:
            patients = [{key.split("/")[1] for key in side} for side in (keys(listing), val)]
            assert not patients[0] & patients[1]


def test_what_cannot_be_folded_is_one_sentence(tmp_path: Path, seeds: Iterator[int]) -> None:
    fill(tmp_path / "cat", 9, seeds)
    fill(tmp_path / "dog", 1, seeds)
    refused("all 1 images of dog are in one: it has too few images", listing_of, tmp_path, Drawing(folds=3, fold=1))
    refused("folds must be at most the 10 images that there are, got 11", listing_of, tmp_path, Drawing(folds=11))
    fill(tmp_path / "split" / "train" / "cat", 2, seeds)
    fill(tmp_path / "split" / "val" / "cat", 2, seeds)
    refused("folds must be left out where there is a split val", listing_of, tmp_path / "split", Drawing(folds=2))
