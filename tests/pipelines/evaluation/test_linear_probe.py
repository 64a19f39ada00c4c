"""A classifier on features: scikit-learn's own answers, folded into the network's last layer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipelines.data_settings import Data
from pipelines.evaluation.evaluate import trained_on
from pipelines.evaluation.linear_probe import Probe, chosen_strength, fitted, probe
from pipelines.evaluation.pooled_features import Features
from pipelines.models.by_name import open_checkpoint
from pipelines.models.initial_weights import begin_from, initial_checkpoint
from pipelines.run import standard
from pipelines.shards.manifest import read_manifest


def blobs(classes: int, count: int = 60, spread: float = 2.0) -> Features:
    """Clouds of points, one channel of which never fires."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    points = rng.normal(0, spread, (count, 6)) + 5 * np.eye(6)[labels] + 3
    points[:, 5] = 0
    return Features(points.astype(np.float32), labels)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_folded_layer_answers_as_scikit_learn_does(classes: int) -> None:
    data = blobs(classes)
    weight, bias = fitted(data, 0.1, True, classes)
    peer = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000))
    expected = peer.fit(data.features.astype(np.float64), data.labels).predict_proba(data.features.astype(np.float64))
    np.testing.assert_allclose(softmax(data.features @ weight.T + bias, axis=1), expected, atol=1e-6)


def test_a_class_without_training_images_is_never_the_answer() -> None:
    data = blobs(3)
    weight, bias = fitted(Features(data.features, np.array([0, 1, 3])[data.labels]), 1.0, False, 5)
    assert weight.shape == (5, 6)
    assert set((data.features @ weight.T + bias).argmax(1).tolist()) == {0, 1, 3}


def test_the_strength_is_chosen_by_images_that_were_left_out() -> None:
    """Noise with as many channels as images: all of it can be learnt, and none of it is true."""
    rng = np.random.default_rng(0)
    noise = Features(rng.normal(size=(90, 60)).astype(np.float32), rng.integers(0, 2, 90))
    strength, error = chosen_strength(noise, False)
    assert strength <= 1e-3
    assert 30 < error < 70
    easy = blobs(3, spread=0.2)
    assert chosen_strength(easy, False)[1] == 0.0


def test_a_probe_is_a_checkpoint_that_is_gone_on_from(untrained: Any, digits: str, tmp_path: Path) -> None:
    """Features of random weights tell most digits apart; the network with the new layer gives the probe's answers."""
    (place,) = untrained(0).glob("step-*")
    outcome = probe(str(place), Probe(data=Data(path=digits), out=str(tmp_path / "probe")), show=False)
    assert outcome.top1_error < 25
    assert outcome.examples == 360
    model, checkpoint = open_checkpoint(outcome.checkpoint)
    assert trained_on(outcome.checkpoint) == digits
    assert checkpoint.run["init"] == str(place)
    from pipelines.evaluation.pooled_features import pooled_features
    from pipelines.shards.row_groups import open_split

    val = pooled_features(model, open_split(digits, "val")[1], read_manifest(digits).fingerprint(), show=False)
    logits = val.features @ model.weights["fc.weight"].numpy().T + model.weights["fc.bias"].numpy()
    assert 100 * (logits.argmax(1) != val.labels).mean() == pytest.approx(outcome.top1_error)
    run = begin_from(standard("cifar10-resnet8@finetune", init=outcome.checkpoint))
    _, sentence = initial_checkpoint(run, read_manifest(digits), 1437, 360)
    assert sentence.startswith("the classifier of the weights goes on")
    probe(str(place), Probe(data=Data(path=digits), out=str(tmp_path / "probe"), strength=0.1), show=False)  # again


def test_a_mistake_is_one_sentence(untrained: Any, digits: str, tmp_path: Path) -> None:
    (place,) = untrained(0).glob("step-*")
    with pytest.raises(ValueError, match=r"data\.path must be given"):
        Probe()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="out must be a folder that is absent or holds a checkpoint"):
        probe(str(place), Probe(data=Data(path=digits), out=str(tmp_path), strength=0.1), show=False)
    assert (tmp_path / "notes.txt").exists()
    with pytest.raises(ValueError, match="network is for files of weights"):
        probe(str(place), Probe(data=Data(path=digits), network="cifar10-resnet8"), show=False)
