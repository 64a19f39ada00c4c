"""An index is made of the parts that are there, belongs to one model, and is left alone when it is whole."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.prediction.image_index import IndexJob, index_images, rows_of
from pipelines.prediction.predict import _claim, list_parts
from pipelines.prediction.prediction_worker import Worker
from pipelines.storage import Folder
from resnet.retrieval.vector_index import CARD, IndexCard, VectorIndex
from serve.inference.classifier import Classifier
from serve.inference.offline_classifier import Offline, index_card

pytest.importorskip("usearch", reason="usearch is not installed: an older .venv")


def not_opened(**_: Any) -> Offline:
    raise AssertionError("nothing is left to do")


@pytest.fixture
def asked(photos: Path, tmp_path: Path) -> IndexJob:
    return IndexJob(images=str(photos), out=str(tmp_path / "index"), part_images=4, precision="float32", thumbnail=32)


@pytest.fixture
def card(checkpoint: Path) -> IndexCard:
    return index_card(str(checkpoint), "resnet", "1")


def embed(asked: IndexJob, checkpoint: Path) -> None:
    """As Ray Data's actors do."""
    job = asked.prediction()
    parts, digest = list_parts(job)
    _claim(Folder(job.out), job, ("resnet", "1"), digest)
    worker = Worker(job, partial(Offline, str(checkpoint), precision="float32"))
    worker({"part": np.array([part.model_dump_json() for part in parts])})


def test_images_are_found_by_their_keys_and_what_is_none_is_counted(
    asked: IndexJob, card: IndexCard, checkpoint: Path, photos: Path
) -> None:
    embed(asked, checkpoint)
    outcome = index_images(asked, card, not_opened, show=False)
    assert (outcome.images, outcome.failed, outcome.model, outcome.version) == (5, 1, "resnet", "1")
    index = VectorIndex(asked.out)
    classifier = Classifier(str(checkpoint), precision="float32")
    for key in ("a/0.jpg", "b/c/4.jpg"):
        (near, *_) = index.nearest(classifier.embed([(photos / key).read_bytes()])[0], 3)
        assert near.key == key
        assert near.distance < 2e-3
        assert near.thumbnail.startswith(b"\xff\xd8")
    index.require_model(classifier.weights_sha256, "resnet")
    index.close()
    written = (Path(asked.out) / CARD).stat().st_mtime_ns
    assert index_images(asked, card, not_opened, show=False).images == 5
    assert (Path(asked.out) / CARD).stat().st_mtime_ns == written  # a finished one does nothing
    assert [len(rows) for rows in rows_of(Folder(asked.prediction().out), 2)] == [4, 1]


def test_an_index_of_another_model_stays_as_it_is(asked: IndexJob, card: IndexCard, checkpoint: Path) -> None:
    embed(asked, checkpoint)
    index_images(asked, card, not_opened, show=False)
    other = card.model_copy(update={"model": "other", "weights_sha256": "0" * 64})
    with pytest.raises(ValueError, match="out holds an index of resnet version 1, got other: name another"):
        index_images(asked, other, not_opened)


def test_a_bucket_is_refused(asked: IndexJob) -> None:
    with pytest.raises(ValueError, match="must be a folder of this machine, or one that all nodes share, got s3://b/x"):
        IndexJob(images=asked.images, out="s3://b/x")
