"""Verification against figures worked out by hand and scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from resnet.retrieval.pair_verification import all_pairs, best_threshold, recall_at, roc, verify_pairs
from resnet.retrieval.vector_index import unit


def faces(persons: int, each: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1, (persons, 32))
    labels = np.repeat(np.arange(persons), each)
    return unit(centres[labels] + rng.normal(0, noise, (len(labels), 32))), labels


def test_the_best_threshold_lies_between_the_scores_it_parts() -> None:
    scores, same = np.array([0.9, 0.8, 0.6, 0.2]), np.array([True, True, False, False])
    assert best_threshold(scores, same) == pytest.approx(0.7)
    assert best_threshold(scores, ~same) == pytest.approx(0.9, abs=1e-5)  # none is accepted: nothing is gained
    assert best_threshold(np.array([0.9, 0.5, 0.5]), np.array([True, True, False])) == pytest.approx(0.7)  # equals


def test_roc_is_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    same = rng.random(500) < 0.3
    scores = np.round(rng.normal(same * 1.0, 1), 1)  # with equal ones
    far, tar = roc(scores, same)
    theirs = roc_curve(same, scores, drop_intermediate=False)
    np.testing.assert_allclose(far, theirs[0])
    np.testing.assert_allclose(tar, theirs[1])


def test_persons_that_differ_are_told_apart_and_noise_is_a_coin() -> None:
    clear = verify_pairs(*faces(20, 6, 0.2))
    assert clear.accuracy == 100
    assert clear.std == 0
    assert clear.tar == {0.1: 100, 0.01: 100, 0.001: 100}
    assert len(clear.folds) == 10
    assert (clear.same_pairs, clear.other_pairs) == (20 * 15, 120 * 119 // 2 - 20 * 15)
    coin = verify_pairs(*faces(40, 6, 1000.0))
    assert 40 < coin.accuracy < 60
    assert 5 < coin.tar[0.1] < 18


def test_tar_at_far_accepts_no_more_strangers_than_it_says() -> None:
    embeddings, labels = faces(20, 6, 1.0)
    found = verify_pairs(embeddings, labels)
    first, second, same = all_pairs(labels)
    scores = (embeddings[first] * embeddings[second]).sum(1)
    for far, tar in found.tar.items():
        allowed = int(far * (~same).sum())
        threshold = np.sort(scores[~same])[::-1][allowed]  # one more would be too many
        assert tar == pytest.approx(100 * (scores[same] > threshold).mean(), abs=1)


def test_recall_counts_each_image_among_the_others() -> None:
    vectors = unit(np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [1, 0.2]]))
    labels = np.array([0, 0, 1, 0, 1])
    # nearest others: 1, 4, 3, 2, 1; the second of images 1 and 2 is of their label; 3 and 4 find theirs later
    assert recall_at(vectors, labels, (1, 2, 4)) == {1: 20, 2: 60, 4: 100}


def test_too_few_persons_or_images_are_one_sentence() -> None:
    with pytest.raises(ValueError, match="at least 4 persons, got 3"):
        verify_pairs(*faces(3, 5, 0.1))
    with pytest.raises(ValueError, match="at least one person with two images"):
        verify_pairs(*faces(8, 1, 0.1))
