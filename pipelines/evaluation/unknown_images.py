"""Images unlike those of training are told by a distance score: fitted on train, its threshold from another split."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from pipelines.evaluation.outcome import OtherFigures, UnknownFigures
from pipelines.evaluation.pooled_features import Features, pooled_features
from pipelines.file_names import without_secrets_in
from pipelines.shards.manifest import Manifest, read_manifest
from pipelines.shards.row_groups import Split, open_split
from pipelines.storage import Folder
from resnet.evaluation.feature_distance import DISTANCE, DistanceCard, FeatureDistance, nearest

if TYPE_CHECKING:
    from resnet.evaluation.scorer import Model


def measured(
    model: Model, manifest: Manifest, split: Split, share: float, others: str | None, *, show: bool = True
) -> tuple[FeatureDistance, UnknownFigures]:
    """The distance score of a network, and how it does. Features are computed in this process, and kept.

    split: by whose images the threshold is chosen, so that `share` of them are known; others: shards of other kinds of
    pictures, which the score should tell from those of split. ValueError: there are none.
    """
    sha, (_, train) = manifest.fingerprint(), open_split(split.uri, "train")
    seen, own = (pooled_features(model, each, sha, show=show) for each in (train, split))
    whitening, centers = fitted_centers(seen)
    distances = nearest(own.features @ whitening, centers)
    threshold = float(np.quantile(distances, share, method="higher"))
    card = DistanceCard(
        threshold=threshold, share=share, split=split.name, data=without_secrets_in(split.uri), images=len(seen.labels)
    )
    distance = FeatureDistance(whitening, centers, card)
    told = None if others is None else _beside(model, distance, own, distances, others, show)
    return distance, UnknownFigures(threshold=threshold, share=share, images=len(distances), others=told)


def fitted_centers(train: Features) -> tuple[np.ndarray, np.ndarray]:
    """(whitening, centers): the covariance inside the classes, shrunk after Ledoit and Wolf (2004), as there may be
    fewer images than features."""
    from sklearn.covariance import LedoitWolf

    present, place = np.unique(train.labels, return_inverse=True)
    features = train.features.astype(np.float64)
    means = np.stack([features[place == k].mean(0) for k in range(len(present))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one sample, say
        precision = np.asarray(LedoitWolf(assume_centered=True).fit(features - means[place]).precision_)
    whitening = np.linalg.cholesky((precision + precision.T) / 2)
    return whitening.astype(np.float32), (means @ whitening).astype(np.float32)


def _beside(
    model: Model, distance: FeatureDistance, own: Features, distances: np.ndarray, others: str, show: bool
) -> OtherFigures:
    """The score on pictures of other kinds, beside the largest probability, which says the same without a score."""
    manifest = read_manifest(others)
    name = "val" if manifest.examples("val") else "train"
    _, split = open_split(others, name)
    found = pooled_features(model, split, manifest.fingerprint(), show=show)
    theirs = distance.of(found.features)
    doubts = [1 - _largest_probability(model, features.features) for features in (own, found)]
    return OtherFigures(
        data=without_secrets_in(others),
        split=name,
        images=len(theirs),
        auroc=auroc_of(distances, theirs),
        auroc_of_probability=auroc_of(*doubts),
        unknown=float((theirs > distance.card.threshold).mean()),
    )


def auroc_of(known: np.ndarray, other: np.ndarray) -> float:
    """Area under the ROC curve of telling others, which should have higher scores, from known ones."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(np.repeat([0, 1], [len(known), len(other)]), np.concatenate([known, other])))


def _largest_probability(model: Model, features: np.ndarray) -> np.ndarray:
    """(N, C) -> (N,), by the classifier of the network."""
    weight, bias = (model.weights[f"fc.{name}"].double().cpu().numpy() for name in ("weight", "bias"))
    logits = features.astype(np.float64) @ weight.T + bias
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares.max(1) / shares.sum(1)


def keep_distance(checkpoint: Folder, distance: FeatureDistance) -> None:
    """Write the score beside a checkpoint: its endpoint answers by it."""
    with checkpoint.writing(DISTANCE) as file:
        file.write(distance.to_bytes())
