"""The distance of an image from those of training: against its formula, kept and read, refused where it is damaged."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from resnet.evaluation.feature_distance import ABOUT, DISTANCE, DistanceCard, FeatureDistance, nearest, read_distance

CARD = DistanceCard(threshold=2.5, share=0.95, split="val", data="/shards", images=12)


def score(features: int = 4, classes: int = 3) -> FeatureDistance:
    rng = np.random.default_rng(0)
    whitening, centers = (rng.normal(size=(n, features)).astype(np.float32) for n in (features, classes))
    return FeatureDistance(whitening, centers, CARD)


def test_it_is_mahalanobis_distance_to_the_nearest_class() -> None:
    """sqrt((x - m)^T P (x - m)) with P = W W^T, the least over the classes' means m = center W^-1."""
    found, points = score(), np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32)
    precision = found.whitening @ found.whitening.T
    means = found.centers @ np.linalg.inv(found.whitening)
    apart = points[:, None] - means
    expected = np.sqrt(np.einsum("nkc,cd,nkd->nk", apart, precision, apart)).min(1)
    np.testing.assert_allclose(found.of(points), expected, rtol=2e-4)
    assert nearest(found.centers, found.centers).tolist() == [0, 0, 0]


def test_it_is_read_as_it_was_kept(tmp_path: Path) -> None:
    assert read_distance(tmp_path) is None
    (tmp_path / DISTANCE).write_bytes(score().to_bytes())
    found = read_distance(tmp_path)
    assert found is not None
    assert found.card == CARD
    assert np.array_equal(found.whitening, score().whitening)
    assert np.array_equal(found.centers, score().centers)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 40,
        score().to_bytes()[:60],
        save({"whitening": np.eye(4, dtype=np.float32)}, {ABOUT: CARD.model_dump_json()}),
        save({"whitening": np.eye(4, dtype=np.float32), "centers": np.ones((2, 4), np.float32)}),
        save(
            {"whitening": np.eye(4, dtype=np.float32), "centers": np.ones((2, 5), np.float32)},
            {ABOUT: CARD.model_dump_json()},
        ),
        save({"whitening": np.eye(4), "centers": np.ones((2, 4))}, {ABOUT: CARD.model_dump_json()}),
    ],
)
def test_what_is_damaged_is_one_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / DISTANCE).write_bytes(data)
    with pytest.raises(ValueError, match=f"^{DISTANCE} of .* is damaged: ") as refused:
        read_distance(tmp_path)
    assert "\n" not in str(refused.value)
