"""Pictures of another kind lie farther than those of a held-out split, and the score is kept for the endpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.evaluation.evaluate import Evaluation, Shards, evaluate
from pipelines.evaluation.pooled_features import Features
from pipelines.evaluation.unknown_images import fitted_centers, keep_distance, measured
from pipelines.models.by_name import open_checkpoint
from pipelines.preparation.prepare import write_shards
from pipelines.preparation.sources import Source
from pipelines.preparation.splits.drawn_splits import Drawing
from pipelines.shards.row_groups import open_split
from pipelines.storage import Folder
from resnet.evaluation.feature_distance import read_distance


def test_the_centers_whiten_the_features_inside_their_classes() -> None:
    """Many images: shrinkage does little, so the covariance around the centers is 1."""
    rng = np.random.default_rng(0)
    mixing, labels = rng.normal(size=(5, 5)), np.repeat([0, 2, 3], 4000)
    features = rng.normal(size=(12_000, 5)) @ mixing + 10 * labels[:, None]
    whitening, centers = fitted_centers(Features(features.astype(np.float32), labels))
    assert (whitening.shape, centers.shape) == ((5, 5), (3, 5))
    around = features @ whitening - centers[np.unique(labels, return_inverse=True)[1]]
    np.testing.assert_allclose(np.cov(around.T), np.eye(5), atol=0.15)


def test_fewer_images_than_features_are_enough() -> None:
    rng = np.random.default_rng(0)
    features = np.maximum(rng.normal(size=(12, 64)), 0).astype(np.float32)
    features[:, :20] = 0  # channels that no image wakes
    whitening, centers = fitted_centers(Features(features, np.arange(12) % 3))
    assert np.isfinite(whitening).all()
    assert np.isfinite(centers).all()


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of pictures that are no digits: two classes of coloured noise."""
    root = tmp_path_factory.mktemp("noise")
    for label in ("a", "b"):
        (root / "images" / label).mkdir(parents=True)
        for i in range(15):
            pixels = np.random.default_rng((i, len(label))).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / label / f"{i}.png")
    write_shards(Source(path=str(root / "images")), str(root / "out"), workers=0, drawing=Drawing(val_share=0.5))
    return str(root / "out")


def test_noise_is_unknown_to_a_network_for_digits(untrained: Any, digits: str, noise: str, tmp_path: Path) -> None:
    """The threshold holds by its definition on val; noise lies beyond it even for random weights."""
    (place,) = untrained(0).glob("step-*")
    model, _ = open_checkpoint(str(place))
    manifest, val = open_split(digits, "val")
    distance, figures = measured(model, manifest, val, 0.9, noise, show=False)
    assert (figures.images, figures.share, distance.card.images) == (360, 0.9, 1437)
    assert figures.others is not None
    assert (figures.others.images, figures.others.split) == (16, "val")
    assert figures.others.auroc > 0.99
    assert figures.others.unknown == 1.0
    assert "of 16 val images" in figures.shown
    keep_distance(Folder(str(tmp_path)), distance)
    kept = read_distance(tmp_path)
    assert kept is not None
    assert kept.card == distance.card
    assert distance.centers.shape == (10, distance.whitening.shape[0])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"others": "x"}, "others has an effect with distance only, got x"),
        ({"known": 0.9}, "known has an effect with distance only, got 0.9"),
        ({"distance": True, "data": Shards(split="train")}, r"distance needs data\.split val or test"),
        ({"keep": True}, "keep is for the report or the distance of one checkpoint of ours"),
    ],
)
def test_a_mistake_is_one_sentence(untrained: Any, options: dict[str, Any], sentence: str) -> None:
    (place,) = untrained(0).glob("step-*")
    with pytest.raises(ValueError, match=sentence):
        evaluate([str(place)], Evaluation(**options), show=False)
