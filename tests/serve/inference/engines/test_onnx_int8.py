"""The int8 network beside a checkpoint: its agreement, and a folder that has none or a damaged one."""

from pathlib import Path

import numpy as np
import pytest

from serve.inference.engines.onnx_int8 import AGREEMENT, INT8, Agreement, read_int8

EXPECTED = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.4, 0.3, 0.3], [0.2, 0.2, 0.6]])


def test_agreement_is_of_the_best_class_and_of_all_probabilities():
    found = EXPECTED.copy()
    found[2] = [0.3, 0.4, 0.3]  # another best class
    told = Agreement.of(found, EXPECTED, calibration_images=9)
    assert (told.images, told.calibration_images, told.top1_agreement) == (4, 9, 75.0)
    assert told.mean_difference == pytest.approx(0.2 / 12)
    assert told.largest_difference == pytest.approx(0.1)


def test_a_checkpoint_without_one_names_the_job_that_writes_it(cifar: Path):
    with pytest.raises(ValueError, match=f"precision int8 needs {INT8} beside the checkpoint, got none.*export_model"):
        read_int8(str(cifar), 1)


@pytest.mark.parametrize(
    ("content", "agreement", "words"),
    [
        (b"no network", '{"images": 1}', f"{INT8} of .* cannot be read: "),
        (b"", "{}", f"{INT8} of .* cannot be read: "),
    ],
)
def test_what_is_damaged_is_one_sentence(tmp_path: Path, content: bytes, agreement: str, words: str):
    pytest.importorskip("onnxruntime")
    (tmp_path / INT8).write_bytes(content)
    (tmp_path / AGREEMENT).write_text(agreement)
    with pytest.raises(ValueError, match=words) as refused:
        read_int8(str(tmp_path), 1)
    assert "\n" not in str(refused.value)
