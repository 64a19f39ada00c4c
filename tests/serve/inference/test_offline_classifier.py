"""Offline prediction refuses what the endpoint refuses, in its words, and computes the same numbers."""

from pathlib import Path

import numpy as np
import pytest

from serve.inference.classifier import Classifier
from serve.inference.offline_classifier import MAX_PIXELS, Offline
from serve.inference.upload_checks import check_upload
from serve.problems import Problem
from serve.settings import Settings
from tests.serve.conftest import draw, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_checkpoint(Path(tmp_path_factory.mktemp("offline")) / "best", "cifar10-resnet8-A", 32, 10))


def test_crops_and_numbers_are_the_endpoints(checkpoint: str) -> None:
    offline, endpoint = Offline(checkpoint, precision="float32"), Classifier(checkpoint, precision="float32")
    images = [draw(seed) for seed in range(3)]
    for data in images:
        np.testing.assert_array_equal(offline.crop(data), endpoint.crop(data))
    for mine, theirs in zip(offline.predict(images, 3), endpoint.predict(images, 3), strict=True):
        assert [p.image_class for p in mine] == [p.image_class for p in theirs]
        np.testing.assert_array_equal([p.probability for p in mine], [p.probability for p in theirs])


@pytest.mark.parametrize("data", [b"", b"no image", draw(0)[:400], b"%PDF-1.7 \n"], ids=["empty", "text", "cut", "PDF"])
def test_a_refusal_is_the_endpoints_sentence(checkpoint: str, data: bytes) -> None:
    offline = Offline(checkpoint, precision="float32")
    with pytest.raises(Problem) as problem:
        check_upload(data, MAX_PIXELS, offline.shorter_side)
    with pytest.raises(ValueError, match=r"\w") as refused:
        offline.crop(data)
    assert str(refused.value) == problem.value.detail
    assert not isinstance(refused.value, Problem)


def test_the_limit_of_pixels_is_the_endpoints_own() -> None:
    assert Settings().max_pixels == MAX_PIXELS
