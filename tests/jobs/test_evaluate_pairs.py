"""jobs/evaluate_pairs.py: a checkpoint by its folder, and a model that must be named."""

from pathlib import Path

import pytest

from jobs import evaluate_pairs
from tests.serve.conftest import draw, write_checkpoint
from tests.serve.dense_checkpoints import write_dense


def test_a_checkpoint_is_tested_on_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = write_checkpoint(tmp_path / "best", "cifar10-resnet8-A", 32, 10)
    for number in range(10):
        place = tmp_path / "faces" / f"p{number // 2}" / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(draw(number))
    words = ["--images", str(tmp_path / "faces"), "--out", str(tmp_path / "out"), "--precision", "float32"]
    outcome = evaluate_pairs.job([str(checkpoint), *words])
    assert (outcome.images, outcome.persons) == (10, 5)
    assert "5 persons" in capsys.readouterr().err


def test_a_model_must_be_named() -> None:
    with pytest.raises(ValueError, match="MODEL must come first"):
        evaluate_pairs.job(["--images", "x", "--out", "y"])


def test_a_detector_has_no_embeddings(tmp_path: Path) -> None:
    cells = write_dense(tmp_path / "cells", "detection")
    with pytest.raises(ValueError, match="a checkpoint must be of classification here, got one of detection"):
        evaluate_pairs.job([str(cells), "--images", str(tmp_path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
