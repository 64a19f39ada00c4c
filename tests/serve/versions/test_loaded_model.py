"""A version is checked by its stored examples before it answers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from resnet.training.checkpoint import answered, load_checkpoint, save_checkpoint
from serve.inference.classifier import Classifier
from serve.settings import Args
from serve.versions.loaded_model import check_answers, load_version
from serve.versions.traffic import Version
from tests.serve.conftest import draw, write_checkpoint


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A checkpoint with three examples and their answers."""
    plain = load_checkpoint(write_checkpoint(tmp_path / "plain", "cifar10-resnet8-A", 32, 10))
    plain.examples = answered(plain, np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8))
    save_checkpoint(tmp_path / "stored", plain)
    return tmp_path / "stored"


def test_a_loaded_version_names_itself_and_answers(stored: Path):
    args = Args(checkpoint=str(stored), precision="float32")
    loaded = load_version(Version(version="5", checkpoint=str(stored)), args, "mine", "test")
    try:
        assert loaded.signature == {"model": "mine", "version": "5"}
        assert loaded.classifier is loaded.inference.classifier
        assert loaded.classifier.predict([draw(0)], 1) == Classifier(str(stored), precision="float32").predict(
            [draw(0)], 1
        )
    finally:
        loaded.inference.close()


def test_examples_that_are_answered_otherwise_are_refused_with_the_difference(stored: Path):
    classifier = Classifier(str(stored), precision="float32")
    check_answers(classifier)
    assert classifier.examples is not None
    right = classifier.examples["probabilities"]
    classifier.examples["probabilities"] = right + torch.tensor([0.02] + [0.0] * 9)
    with pytest.raises(
        ValueError, match=r"^its answers on its 3 stored examples differ by up to 0\.020, allowed 0\.01$"
    ):
        check_answers(classifier)
    classifier.precision = "bfloat16"  # rounds more coarsely, so more is allowed
    check_answers(classifier)
    classifier.examples["probabilities"] = right[:, :4]
    with pytest.raises(ValueError, match=r"have shape \(3, 10\), expected \(3, 4\)$"):
        check_answers(classifier)


@pytest.mark.parametrize("examples", [True, False], ids=["with examples", "without"])
def test_weights_that_are_no_numbers_are_refused(stored: Path, tmp_path: Path, examples: bool):
    damaged = load_checkpoint(stored)
    damaged.model["fc.bias"][3] = float("nan")
    if not examples:
        damaged.examples = None
    save_checkpoint(tmp_path / "damaged", damaged)
    args = Args(checkpoint=str(tmp_path / "damaged"), precision="float32")
    with pytest.raises(ValueError, match=r"^its answers are no numbers$"):
        load_version(Version(version="6", checkpoint=args.checkpoint), args, "mine", "test")
