"""A file of weights becomes a model with the classes and the preprocessing that it wants."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import resnet18

from pipelines.models.by_name import open_models
from pipelines.models.pretrained_weights import model_of_file, open_weights
from pipelines.models.weight_files import WeightFile
from pipelines.shards.imagenet_classes import wnids

V15 = "imagenet-resnet18-B-v1.5"


State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    return resnet18(num_classes=7).state_dict()


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def test_weights_that_do_not_fit_are_counted_and_a_few_named(tmp_path: Path, state: State) -> None:
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="does not fit") as found:
        open_models([str(tmp_path / "x.safetensors")], "imagenet-resnet34-B")
    # ResNet-34 has 8 basic blocks more, of two convolutions and two batch norms with four tensors each
    assert "80 of 182 are missing (layer1.2.conv1.weight, layer1.2.bn1.weight, layer1.2.bn1.bias, ...)" in str(
        found.value
    )
    assert len(str(found.value)) < 400
    torch.save(state | {"conv1.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "stem.pth")
    with pytest.raises(ValueError, match=r"1 of 102 have another shape \(conv1\.weight is 64x3x3x3, not 64x3x7x7\)$"):
        open_models([str(tmp_path / "stem.pth")], V15)
    torch.save({"a.fc.weight": torch.zeros(2), "b.c": torch.zeros(2)}, tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"no fc\.weight and conv1\.weight, but 2 tensors such as a\.fc\.weight, b\.c"):
        open_models([str(tmp_path / "none.pth")], V15)
    torch.save(prefixed(state, "student.") | prefixed(state, "teacher."), tmp_path / "two.pth")
    with pytest.raises(ValueError, match=r"must hold one network, got 2, below student\. and teacher\."):
        open_models([str(tmp_path / "two.pth")], V15)


def test_classes_are_those_beside_the_weights_or_imagenets_or_unknown(state: State) -> None:
    def classes(weights: State, **configs: Any) -> list[str] | None:
        file = WeightFile(weights, "0" * 64, "x.pth", {"config.json": configs})
        found = model_of_file("x.pth", file, V15, None)[0].classes
        return None if found is None else [c.wnid for c in found]

    labels = {str(i): f"bird {i}" for i in range(7)}
    assert classes(state, id2label=labels) == [f"bird {i}" for i in range(7)]
    assert classes(state) is None
    thousand = state | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    assert classes(thousand) == list(wnids())


def test_a_file_is_opened_with_the_preprocessing_beside_it_which_is_told(
    tmp_path: Path, state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(state, tmp_path / "model.safetensors")
    config = {"architecture": "resnet18", "pretrained_cfg": {"crop_pct": 0.95, "mean": [0.5] * 3, "std": [0.25] * 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = str(tmp_path / "model.safetensors")
    model = open_weights(path, None)
    assert (model.network, model.images.eval_side, model.images.size) == (V15, 235, 224)
    assert model.mean.flatten().tolist() == [127.5] * 3
    assert model.std.flatten().tolist() == [63.75] * 3
    assert all(torch.equal(model.weights[name], tensor) for name, tensor in state.items())
    assert capsys.readouterr().err == (
        f"{path}: {V15}, images resized to 235 (bilinear), the middle 224 x 224: "
        "timm's config.json beside the weights\n"
    )
    assert open_weights(path, None, "256").images.eval_side == 256


def test_a_file_that_says_no_network_needs_its_name(tmp_path: Path, state: State) -> None:
    save_file(state, tmp_path / "mine.safetensors")
    with pytest.raises(ValueError, match=r"network must say what .*mine\.safetensors holds, e\.g\. --network imagenet"):
        open_weights(str(tmp_path / "mine.safetensors"), None)
