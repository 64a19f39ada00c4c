"""Figures by class against scikit-learn, and intervals against what is known of them."""

from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from pipelines.evaluation.class_figures import (
    Answers,
    calibration_errors,
    classifier_figures,
    drawn_weights,
    few,
    ranking_figures,
    threshold_for,
)
from resnet.evaluation.error_summary import Ranked


def answers(images: int = 240, classes: int = 3, groups: int | None = None, seed: int = 0) -> Answers:
    """Scores that lean to the label, with ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    scores = np.round(rng.dirichlet(np.ones(classes), images) + 0.4 * np.eye(classes)[labels], 2)
    scores /= scores.sum(1, keepdims=True)
    group = np.arange(images) if groups is None else rng.integers(0, groups, images)
    return Answers(scores, labels, scores.argmax(1), group)


def test_figures_are_scikit_learn_s() -> None:
    a = answers()
    found = classifier_figures(a, draws=20)
    assert found.accuracy.value == pytest.approx(metrics.accuracy_score(a.labels, a.predicted))
    assert found.balanced_accuracy.value == pytest.approx(metrics.balanced_accuracy_score(a.labels, a.predicted))
    assert found.loss.value == pytest.approx(metrics.log_loss(a.labels, a.scores))
    assert found.auroc.value == pytest.approx(metrics.roc_auc_score(a.labels, a.scores, multi_class="ovr"))
    peers: Any = metrics
    recall = peers.recall_score(a.labels, a.predicted, average=None)
    precision = peers.precision_score(a.labels, a.predicted, average=None)
    for row in found.classes:
        mine = a.labels == row.label
        assert row.images == mine.sum()
        assert row.sensitivity.value == pytest.approx(recall[row.label])
        assert row.precision.value == pytest.approx(precision[row.label])
        assert row.specificity.value == pytest.approx(metrics.recall_score(~mine, a.predicted != row.label))
        assert row.auroc.value == pytest.approx(metrics.roc_auc_score(mine, a.scores[:, row.label]))
        expected = metrics.average_precision_score(mine, a.scores[:, row.label])
        assert row.average_precision.value == pytest.approx(expected)
    assert found.ece.value == pytest.approx(Ranked.of(a.scores, a.labels).summary().ece)


def test_samples_are_scikit_learn_s_with_weights() -> None:
    a = answers()
    weights = drawn_weights(a.group, 30, 1)
    mine = a.labels == 1
    auroc, precision = ranking_figures(weights, a.scores[:, 1], mine)
    for i, w in enumerate(weights):
        assert auroc[i] == pytest.approx(metrics.roc_auc_score(mine, a.scores[:, 1], sample_weight=w))
        expected = metrics.average_precision_score(mine, a.scores[:, 1], sample_weight=w)
        assert precision[i] == pytest.approx(expected)


def test_groups_are_drawn_whole_and_images_once_at_first() -> None:
    group = np.array([5, 5, 5, 9, 7, 7])
    weights = drawn_weights(group, 50, 0)
    assert weights[0].tolist() == [1] * 6
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 4] == weights[:, 5]).all()
    assert (weights[1:, 0] + weights[1:, 3] + weights[1:, 4] == 3).all(), "as many groups as there are"
    assert len(np.unique(weights, axis=0)) > 5


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """200 samples of 100 images that are right with probability 0.8: a 95 % interval by percentiles holds 0.8 in about
    19 of 20, and in at least 170 of 200."""
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, 100)
        right = rng.random(100) < 0.8
        scores = np.eye(2)[np.where(right, labels, 1 - labels)]
        a = Answers(scores, labels, scores.argmax(1), np.arange(100))
        accuracy = classifier_figures(a, draws=200).accuracy
        assert accuracy.low is not None
        assert accuracy.high is not None
        held += accuracy.low <= 0.8 <= accuracy.high
    assert 170 <= held <= 200


def test_intervals_by_group_are_wider_where_images_of_a_group_are_alike() -> None:
    labels = np.repeat([0, 1], 60)
    group = np.arange(120) // 10
    scores = np.eye(2)[np.where(group % 4 == 0, 1 - labels, labels)]  # whole groups are wrong
    widths = []
    for g in (np.arange(120), group):
        found = classifier_figures(Answers(scores, labels, scores.argmax(1), g)).accuracy
        assert found.low is not None
        assert found.high is not None
        widths.append(found.high - found.low)
    assert widths[1] > 2.5 * widths[0]  # the square root of ten images a group is 3.2


def test_the_threshold_reaches_the_wished_sensitivity_and_no_higher_one_does() -> None:
    scores = np.array([0.9, 0.8, 0.8, 0.3, 0.1])
    assert threshold_for(scores, 0.6) == 0.8
    assert threshold_for(scores, 0.61) == 0.3
    assert threshold_for(scores, 1.0) == 0.1
    assert threshold_for(np.array([]), 0.9) is None
    a = answers(500)
    row = classifier_figures(a, 0.9, draws=10).classes[0]
    mine = a.labels == 0
    assert row.threshold is not None
    assert (a.scores[mine, 0] >= row.threshold).mean() >= 0.9
    higher = np.unique(a.scores[mine, 0][a.scores[mine, 0] > row.threshold])
    assert (a.scores[mine, 0] >= higher.min()).mean() < 0.9
    assert row.specificity_there.value == pytest.approx((a.scores[~mine, 0] < row.threshold).mean())


def test_what_is_not_defined_is_not_told() -> None:
    """A class without images has no sensitivity; one that is never answered has no precision; few images are named."""
    scores = np.array([[0.9, 0.05, 0.05]] * 12)
    found = classifier_figures(Answers(scores, np.array([0] * 9 + [1] * 3), scores.argmax(1), np.arange(12)), draws=50)
    assert found.classes[2].sensitivity.value is None
    assert found.classes[2].auroc.value is None
    assert found.classes[2].threshold is None
    assert found.classes[1].precision.value is None
    assert found.classes[1].sensitivity.value == 0
    assert found.balanced_accuracy.value == 0.5
    assert few(found, ["cat", "dog", "cow"]) == ["cat (9)", "dog (3)", "cow (0)"]


def test_a_calibrated_classifier_has_no_calibration_error() -> None:
    confidence = np.repeat([0.55, 0.95], 100)
    right = np.r_[np.arange(100) < 55, np.arange(100) < 95]
    assert calibration_errors(np.ones((1, 200)), confidence, right)[0] == pytest.approx(0)
    assert calibration_errors(np.ones((1, 200)), confidence, np.ones(200, bool))[0] == pytest.approx(0.25)
