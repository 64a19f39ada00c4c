"""Pairs of photographs of some persons: figures, the ROC figure, and refusals."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.evaluation.pair_test import PairTestJob, evaluate_embeddings
from serve.inference.offline_classifier import Offline, classes_trained_on
from tests.serve.conftest import draw, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("pairs") / "best", "cifar10-resnet8-A", 32, 10)


@pytest.fixture
def asked(tmp_path: Path) -> PairTestJob:
    """Six persons, whose two pictures are the same: any network tells them apart from others."""
    for person in range(6):
        folder = tmp_path / "faces" / f"p{person}"
        folder.mkdir(parents=True)
        for number in range(2):
            (folder / f"{number}.png").write_bytes(draw(person, kind="PNG"))
    return PairTestJob(images=str(tmp_path / "faces"), out=tmp_path / "out", precision="float32")


def test_persons_whose_pictures_are_equal_are_told_apart(asked: PairTestJob, checkpoint: Path) -> None:
    outcome = evaluate_embeddings(
        asked, "best", classes_trained_on(str(checkpoint)), lambda: Offline(str(checkpoint), precision="float32")
    )
    assert (outcome.images, outcome.persons, outcome.same_pairs, outcome.other_pairs) == (12, 6, 6, 60)
    assert outcome.recall == {"1": 100.0, "5": 100.0}
    assert outcome.tar == {"0.1": 100.0, "0.01": 100.0, "0.001": 100.0}
    assert len(outcome.folds) == 3
    assert json.loads((asked.out / "pairs.json").read_text())["accuracy"] == outcome.accuracy == np.mean(outcome.folds)
    assert (asked.out / "roc.png").read_bytes().startswith(b"\x89PNG")


def test_a_person_of_the_training_is_refused(asked: PairTestJob, checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="of persons that the model was not trained on, got p1, p3"):
        evaluate_embeddings(asked, "best", {"p3", "p1", "q"}, lambda: Offline(str(checkpoint)))


def test_what_is_no_image_is_named(asked: PairTestJob, checkpoint: Path) -> None:
    (Path(asked.images) / "p0" / "notes.txt").write_text("none")
    with pytest.raises(ValueError, match=r"images must all be such, got p0/notes\.txt: an image must be JPEG"):
        evaluate_embeddings(asked, "best", (), lambda: Offline(str(checkpoint), precision="float32"))
