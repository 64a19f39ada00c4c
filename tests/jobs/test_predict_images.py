"""jobs/predict_images.py: the endpoint's numbers, parts that are resumed, images that are none, weights, refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import parquet

from jobs import predict_images
from pipelines.models import by_name
from resnet.networks.resnet import build
from serve.inference.classifier import Classifier
from tests.serve.conftest import draw, write_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray Data itself


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("predict") / "best", "cifar10-resnet8-A", 32, 10)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five images in two folders, a damaged one, a text and an empty file."""
    folder = tmp_path / "photos"
    for number in range(5):
        place = folder / ("a" if number < 3 else "b/c")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").write_bytes(draw(number))
    (folder / "a" / "cut.jpg").write_bytes(draw(9)[:400])
    (folder / "notes.txt").write_text("no image")
    (folder / "empty.png").touch()
    (folder / ".hidden").write_text("not listed")
    return folder


WHAT = ("--embeddings", "--top-k", "3")


def words(checkpoint: Path, photos: Path, out: Path, *more: str) -> list[str]:
    return [str(checkpoint), "--images", str(photos), "--out", str(out), "--precision", "float32", *more]


def test_rows_equal_the_endpoint_and_a_second_run_writes_what_is_missing(
    ray_local: Any, checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "predictions.parquet"
    asked = words(
        checkpoint, photos, out, "--part-images", "3", "--batch", "2", "--embeddings", "--top-k", "3", "--workers", "2"
    )
    outcome = predict_images.job(asked)
    assert (outcome.images, outcome.failed, outcome.parts, outcome.parts_written) == (8, 3, 3, 3)
    assert "no prediction for notes.txt: an image must be JPEG" in capsys.readouterr().err
    rows = {row["key"]: row for row in parquet.read_table(out).to_pylist()}
    assert sorted(rows) == ["a/0.jpg", "a/1.jpg", "a/2.jpg", "a/cut.jpg", "b/c/3.jpg", "b/c/4.jpg", "empty.png",
                            "notes.txt"]  # fmt: skip
    endpoint = Classifier(str(checkpoint), precision="float32")
    for number in range(5):
        row, data = rows[f"{'a' if number < 3 else 'b/c'}/{number}.jpg"], draw(number)
        (best,) = endpoint.predict([data], 3)
        assert row["error"] is None
        assert row["id"] == [p.image_class.id for p in best]
        assert row["name"] == [p.image_class.name for p in best]
        np.testing.assert_allclose(row["probability"], [p.probability for p in best], atol=1e-6)
        np.testing.assert_allclose(row["embedding"], endpoint.embed([data])[0], rtol=1e-4, atol=1e-5)
    assert all(rows[key]["id"] is None and rows[key]["error"] for key in ("a/cut.jpg", "empty.png", "notes.txt"))

    first, second = (out / f"part-0000{n}.parquet" for n in (0, 1))
    before, expected = first.stat().st_mtime_ns, parquet.read_table(second)
    second.unlink()
    assert predict_images.job(asked).parts_written == 1
    assert first.stat().st_mtime_ns == before
    assert parquet.read_table(second).equals(expected)
    finished = predict_images.job(asked)
    assert (finished.parts_written, finished.failed, finished.images) == (0, 3, 8)


Save = Callable[[dict[str, torch.Tensor], Path], None]


@pytest.mark.parametrize("kind", [".pth", ".safetensors"])
def test_weights_of_torchvision_become_a_checkpoint_once(kind: str, tmp_path: Path):
    from safetensors.torch import save_file

    net = build("imagenet-resnet18", 1000)
    path = tmp_path / f"weights{kind}"
    save: Save = torch.save if kind == ".pth" else save_file  # pyright: ignore[reportAssignmentType]
    save(net.state_dict(), path)
    folder, version = by_name.checkpoint_of(str(path), "imagenet-resnet18")
    classifier = Classifier(folder, precision="float32")
    assert (classifier.size, classifier.shorter_side) == (224, 256)
    assert classifier.classes[0].name == "tench"
    assert by_name.checkpoint_of(str(path), "imagenet-resnet18") == (folder, version)
    with pytest.raises(ValueError, match="network must say"):
        by_name.checkpoint_of(str(path))


def test_no_prediction_at_all_is_a_failure_and_a_file_is_no_folder(ray_local: Any, checkpoint: Path, tmp_path: Path):
    (tmp_path / "notes").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "notes" / name).write_text("no image")
    out = tmp_path / "out.parquet"
    for _ in range(2):  # also where nothing is left to do
        with pytest.raises(ValueError, match=r"none of 2 could be predicted: column error of .*out\.parquet"):
            predict_images.job(words(checkpoint, tmp_path / "notes", out))
    assert all(parquet.read_table(out)["error"].is_valid().to_pylist())
    with pytest.raises(ValueError, match=r"images must be a folder, or its URI, got a file: .*a\.txt"):
        predict_images.job(words(checkpoint, tmp_path / "notes" / "a.txt", tmp_path / "other"))


def test_a_model_must_be_named(tmp_path: Path):
    with pytest.raises(ValueError, match="MODEL must come first"):
        predict_images.job(["--images", str(tmp_path), "--out", str(tmp_path / "out")])
