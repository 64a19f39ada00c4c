"""jobs/index_images.py from photographs to an index that is searched, by Ray Data."""

from pathlib import Path
from typing import Any

import pytest

from jobs import index_images
from resnet.retrieval.vector_index import VectorIndex
from serve.inference.classifier import Classifier
from tests.serve.conftest import draw, write_checkpoint
from tests.serve.dense_checkpoints import write_dense

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray Data itself
pytest.importorskip("usearch", reason="usearch is not installed: an older .venv")


def test_photographs_become_an_index(ray_local: Any, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "best", "cifar10-resnet8-A", 32, 10)
    (tmp_path / "photos").mkdir()
    for number in range(6):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(draw(number))
    words = [str(checkpoint), "--images", str(tmp_path / "photos"), "--out", str(tmp_path / "index")]
    outcome = index_images.job([*words, "--part-images", "3", "--precision", "float32"])
    assert (outcome.images, outcome.failed) == (6, 0)
    index = VectorIndex(outcome.out)
    embedding = Classifier(str(checkpoint), precision="float32").embed([draw(4)])[0]
    assert index.nearest(embedding, 1)[0].key == "4.jpg"
    index.close()


def test_a_model_must_be_named() -> None:
    with pytest.raises(ValueError, match="MODEL must come first"):
        index_images.job(["--images", "x", "--out", "y"])


def test_a_detector_has_no_embeddings(tmp_path: Path) -> None:
    cells = write_dense(tmp_path / "cells", "detection")
    with pytest.raises(ValueError, match="a checkpoint must be of classification here, got one of detection"):
        index_images.job([str(cells), "--images", str(tmp_path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
