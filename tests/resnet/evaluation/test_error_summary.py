import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score

from resnet.evaluation.error_summary import BINS, Ranked, percent_wrong, reliability_bins
from resnet.training.step import error_sums


def random_scores(n=500, k=7, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, k))
    labels = rng.integers(0, k, n)
    logits[np.arange(n), labels] += 2
    return torch.from_numpy(logits).softmax(1).numpy(), labels


def test_errors_and_loss_are_scikit_learns_and_trainings():
    scores, labels = random_scores()
    summary = Ranked.of(scores, labels).summary()
    classes = np.arange(7)
    assert summary.top1_error == pytest.approx(100 - 100 * top_k_accuracy_score(labels, scores, k=1, labels=classes))
    assert summary.top5_error == pytest.approx(100 - 100 * top_k_accuracy_score(labels, scores, k=5, labels=classes))
    assert summary.loss == pytest.approx(log_loss(labels, scores, labels=classes))
    sums = error_sums(torch.from_numpy(scores).log(), torch.from_numpy(labels)).numpy()
    assert sums[3] == summary.examples == 500
    np.testing.assert_allclose(100 * sums[1:3] / 500, [summary.top1_error, summary.top5_error])
    assert sums[0] / 500 == pytest.approx(summary.loss)


def test_confusions_and_the_table_of_classes_are_scikit_learns():
    scores, labels = random_scores(k=4)
    summary = Ranked.of(scores, labels).summary()
    matrix = confusion_matrix(labels, scores.argmax(1), labels=np.arange(4))
    found = np.zeros((4, 4), int)
    for label, predicted, count in summary.confusions:
        found[label, predicted] = count
    np.testing.assert_array_equal(found, matrix)
    for row in summary.classes:
        counts = matrix[row.label]
        assert row.examples == counts.sum()
        assert row.top1_error == pytest.approx(100 - 100 * counts[row.label] / counts.sum())
        assert row.top5_error == 0  # four classes
        counts[row.label] = 0
        assert (row.confused, counts[row.confused_with]) == (counts.max(), counts.max())


def test_calibration_is_the_mean_gap_of_confidence_and_accuracy():
    scores, labels = random_scores(2000)
    summary = Ranked.of(scores, labels).summary()
    best, right = scores.max(1), scores.argmax(1) == labels
    expected = 0.0
    for low in np.arange(BINS) / BINS:
        inside = (best > low) & (best <= low + 1 / BINS)
        if inside.any():
            expected += inside.mean() * abs(best[inside].mean() - right[inside].mean())
    assert summary.ece == pytest.approx(expected)
    assert sum(b.examples for b in summary.bins) == 2000


def test_a_perfectly_calibrated_forecast_has_little_error_and_a_boaster_all_of_it():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 200_000)
    labels = (rng.random(200_000) > confidence).astype(int)
    honest = Ranked.of(np.stack([confidence, 1 - confidence], 1), labels).summary()
    assert honest.ece < 0.01
    sure = Ranked.of(np.tile([1.0, 0.0], (100, 1)), np.arange(100) % 2).summary()
    assert (sure.ece, sure.top1_error) == (0.5, 50.0)


def test_of_equal_scores_the_lower_class_is_first():
    ranked = Ranked.of(np.full((1, 8), 1 / 8), np.array([5]))
    assert ranked.top.tolist() == [[0, 1, 2, 3, 4]]
    assert ranked.summary().top5_error == 100


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_every_image_is_in_one_bin(confidence):
    bins = reliability_bins(np.array(confidence), np.ones(len(confidence), bool))
    assert sum(b.examples for b in bins) == len(confidence)
    for b in bins:
        assert b.confidence is None or b.low - 1e-9 <= b.confidence <= b.high + 1e-9


@given(st.lists(st.booleans(), min_size=1))
def test_percent_is_one_division(right):
    assert percent_wrong(np.array(right)) == 100 * right.count(False) / len(right)
