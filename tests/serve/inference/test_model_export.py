"""Exported files compute what the checkpoint computes, or are not there; int8 is served with its agreement."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from resnet.training.checkpoint import load_checkpoint
from serve.inference import model_export as exporting
from serve.inference.classifier import Classifier
from serve.inference.model_export import Exported, export

Picture = Callable[..., bytes]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch's exporters


@pytest.fixture(scope="module")
def images(picture: Picture) -> list[bytes]:
    return [picture(seed) for seed in range(24)]


@pytest.fixture(scope="module")
def exported(cifar: Path, images: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    out = tmp_path_factory.mktemp("export") / "resnet8"
    return export(load_checkpoint(cifar), out, ("safetensors", "onnx", "pt2", "int8"), [*images, b"no image"])


def test_every_format_gives_the_checkpoints_probabilities_for_any_batch(
    exported: Exported, cifar: Path, images: list[bytes]
):
    model = Classifier(str(cifar), precision="float32")
    crops = np.stack([model.crop(data) for data in images]).transpose(0, 3, 1, 2).astype(np.float32)
    session = onnxruntime.InferenceSession(f"{exported.out}/model.onnx", providers=["CPUExecutionProvider"])
    program = torch.export.load(f"{exported.out}/model.pt2").module()
    for batch in (1, 5, 24):
        expected = model.run_batch([model.crop(data) for data in images[:batch]])
        found, embedding = map(np.asarray, session.run(["probabilities", "embedding"], {"pixels": crops[:batch]}))
        np.testing.assert_allclose(found, [a.probabilities for a in expected], atol=1e-5)
        np.testing.assert_allclose(embedding, [a.embedding for a in expected], atol=1e-4)
        with torch.inference_mode():
            found, _ = program(torch.from_numpy(crops[:batch]))
        np.testing.assert_allclose(found, [a.probabilities for a in expected], atol=1e-5)
    assert exported.images == 24
    assert set(exported.differences) == {"safetensors", "onnx", "pt2"}
    assert max(exported.differences.values()) < 1e-5
    for name, tensor in load_checkpoint(exported.out).model.items():
        assert torch.equal(tensor, load_checkpoint(cifar).model[name]), name


def test_int8_is_served_beside_its_agreement_with_float32(exported: Exported, cifar: Path, images: list[bytes]):
    int8, exact = Classifier(exported.out, precision="int8"), Classifier(str(cifar), precision="float32")
    found, expected = (m.run_batch([m.crop(data) for data in images[12:]]) for m in (int8, exact))
    differences = np.abs([a.probabilities - b.probabilities for a, b in zip(found, expected, strict=True)])
    assert int8.agreement == exported.agreement
    assert int8.agreement
    assert (int8.agreement.images, int8.agreement.calibration_images) == (12, 12)
    assert int8.agreement.mean_difference == pytest.approx(differences.mean(), rel=0.01)
    same = np.mean([a.probabilities.argmax() == b.probabilities.argmax() for a, b in zip(found, expected, strict=True)])
    assert int8.agreement.top1_agreement == pytest.approx(100 * same)
    assert 0 < differences.mean() < 0.02
    with pytest.raises(ValueError, match=r"precision int8 needs int8\.onnx beside the checkpoint, got none in"):
        Classifier(str(cifar), precision="int8")


def test_what_does_not_compute_the_same_is_not_written(
    cifar: Path, images: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(exporting, "ALLOWED", -1.0)  # nothing is that near
    with pytest.raises(ArithmeticError, match="safetensors differs from the checkpoint by up to"):
        export(load_checkpoint(cifar), tmp_path / "out", ("safetensors",), images)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="images must hold at least 2 that can be decoded, got 1"):
        export(load_checkpoint(cifar), tmp_path / "out", ("safetensors",), [images[0], b"none"])
