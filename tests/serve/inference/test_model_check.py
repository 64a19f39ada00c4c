"""What a checkpoint must be to be served. The sentences of damaged ones: tests/jobs/test_deploy_best.py."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from resnet.training.checkpoint import answered, load_checkpoint
from serve.inference import model_check
from tests.serve.conftest import write_checkpoint


def test_a_checkpoint_with_its_own_examples_is_taken_and_others_examples_refused(tmp_path: Path):
    place = write_checkpoint(tmp_path / "best", "cifar10-resnet8-A", 32, 10, seed=1)
    model_check.require_servable(str(place), "checkpoint")
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    save_file(answered(load_checkpoint(place), images), place / "examples.safetensors")
    model_check.require_servable(place.as_uri(), "checkpoint")
    stored = load_file(place / "examples.safetensors")
    save_file(stored | {"probabilities": stored["probabilities"].roll(1, 1)}, place / "examples.safetensors")
    with pytest.raises(ValueError, match=r"^checkpoint .*best cannot be served: its answers on its 3 stored examples"):
        model_check.require_servable(str(place), "checkpoint")


def test_damaged_int8_files_are_named(tmp_path: Path):
    place = write_checkpoint(tmp_path / "best", "cifar10-resnet8-A", 32, 10, seed=1)
    (place / "int8.onnx").write_bytes(b"no graph")
    (place / "int8.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"^models dogs .*best cannot be served: int8\.onnx of .*best cannot be read: "
    ):
        model_check.require_servable(str(place), "models dogs", "int8")


def test_a_place_that_only_the_nodes_reach_is_not_judged():
    model_check.require_servable("http://127.0.0.1:9/best", "checkpoint")
