"""Served answers are the checkpoint's own: the same crop, the same numbers."""

import io
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from resnet.images.crops.evaluation_crops import center_crop
from resnet.networks.resnet import build
from resnet.training import checkpoint
from serve.inference.classifier import Classifier, fetch_checkpoint, fold_batch_norm

Picture = Callable[..., bytes]


def offline(folder: Path, images: list[bytes], size: int, shorter_side: int) -> torch.Tensor:
    """Probabilities of the untouched float32 network on the evaluation's crop."""
    saved = checkpoint.load_checkpoint(folder)
    pixels = torch.from_numpy(np.stack([center_crop(data, size, shorter_side) for data in images]))
    with torch.inference_mode():
        return saved.network()(saved.normalize()(pixels)).softmax(1)


@pytest.mark.parametrize(("fixture", "size", "shorter_side"), [("cifar", 32, 32), ("imagenet", 64, 73)])
def test_float32_predictions_equal_offline_ones(
    fixture: str, size: int, shorter_side: int, request: pytest.FixtureRequest, picture: Picture
):
    folder = request.getfixturevalue(fixture)
    model = Classifier(str(folder), precision="float32")
    images = [picture(seed, 100 + 10 * seed, 80) for seed in range(6)]
    expected = offline(folder, images, size, shorter_side)
    for row, best in zip(expected, model.predict(images, top_k=3), strict=True):
        values, indices = row.topk(3)
        assert [p.image_class.id for p in best] == indices.tolist()
        np.testing.assert_allclose([p.probability for p in best], values, atol=2e-6)
    assert model.deviation < 2e-6


def test_bfloat16_deviates_by_what_the_model_states(imagenet: Path, picture: Picture):
    model = Classifier(str(imagenet), precision="bfloat16")
    images = [picture(seed) for seed in range(8)]
    expected = offline(imagenet, images, 64, 73).numpy()
    answers = np.stack([a.probabilities for a in model.run_batch([model.crop(data) for data in images])])
    assert 1e-6 < model.deviation < 0.1
    assert np.abs(answers - expected).max() < 3 * model.deviation
    assert model.precision == "bfloat16"


def test_embedding_is_the_pooled_map_before_the_classifier(cifar: Path, classifier: Classifier, picture: Picture):
    saved = checkpoint.load_checkpoint(cifar)
    data = picture(3)
    pixels = torch.from_numpy(center_crop(data, 32, 32))[None]
    with torch.inference_mode():
        expected = saved.network().embed(saved.normalize()(pixels))
    np.testing.assert_allclose(classifier.embed([data]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["imagenet-resnet50-C", "imagenet-plain18", "cifar10-resnet8-B", "imagenet-resnet18-A"]
)
def test_folding_batch_norm_keeps_the_function(name: str):
    torch.manual_seed(0)
    net = build(name, 5).double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 1)
            nn.init.normal_(module.bias)
            assert module.running_var is not None
            module.running_var.uniform_(0.5, 2)
    net.eval()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        before = net(images)
        fold_batch_norm(net)
        torch.testing.assert_close(net(images), before, rtol=1e-10, atol=1e-10)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())


def test_answers_do_not_depend_on_the_rest_of_the_batch(classifier: Classifier, picture: Picture):
    crops = [classifier.crop(picture(seed)) for seed in range(7)]
    together = classifier.run_batch(crops)
    for crop, answer in zip(crops, together, strict=True):
        np.testing.assert_allclose(classifier.run_batch([crop])[0].probabilities, answer.probabilities, atol=1e-6)


def test_top_k_above_the_classes_gives_all_in_order(classifier: Classifier, picture: Picture):
    (best,) = classifier.predict([picture(1)], top_k=100)
    assert sorted(p.image_class.id for p in best) == list(range(10))
    assert sum(p.probability for p in best) == pytest.approx(1, abs=1e-5)
    assert [p.probability for p in best] == sorted((p.probability for p in best), reverse=True)


def test_a_checkpoint_is_read_from_a_uri(cifar: Path):
    memory = fsspec.filesystem("memory")
    memory.put(f"{cifar}/", "/bucket/best/", recursive=True)
    weights = fetch_checkpoint("memory://bucket/best").model
    assert all(torch.equal(weights[k], v) for k, v in checkpoint.load_checkpoint(cifar).model.items())


def test_a_folder_without_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"must hold model\.safetensors"):
        Classifier(str(tmp_path))


def test_deep_grey_is_served_by_the_range_of_the_training(cifar: Path, tmp_path: Path):
    trained = checkpoint.load_checkpoint(cifar)
    trained.progress = trained.progress.model_copy(update={"grey_range": (0, 4095)})
    checkpoint.save_checkpoint(tmp_path / "deep", trained)
    levels = np.random.default_rng(0).integers(0, 4096, (40, 40)).astype(np.uint16)
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, "PNG")
    plain = io.BytesIO()
    Image.fromarray((levels >> 4).astype(np.uint8)).save(plain, "PNG")
    served = Classifier(str(tmp_path / "deep"), precision="float32")
    unaware = Classifier(str(cifar), precision="float32")
    assert np.array_equal(served.crop(stream.getvalue()), unaware.crop(plain.getvalue()))
    assert len(np.unique(unaware.crop(stream.getvalue()))) <= 16
