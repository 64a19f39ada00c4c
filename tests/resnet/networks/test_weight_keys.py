"""Names of weights as other programs store them become torchvision's, tensor by tensor."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from resnet.networks.cost import on_meta
from resnet.networks.weight_keys import misfit, torchvision_weights

NET = on_meta("imagenet-resnet18-B-v1.5")
STATE: dict[str, Tensor] = NET.state_dict()  # without data: names and shapes are all that is looked at


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in STATE.items()}


@pytest.mark.parametrize(
    "stored",
    [
        STATE,
        {"model": {"state_dict": STATE}, "epoch": 3},
        {"state_dict": prefixed("module._orig_mod."), "optimizer": {"lr": 0.1}},
        {"model_ema": prefixed("module."), "arch": "resnet18"},
        prefixed("backbone."),
        prefixed("model.") | {"teacher.fc.weight": torch.zeros(1)},
        prefixed("") | {"head.fc.weight": torch.zeros(1), "head.conv1.weight": torch.zeros(1)},
    ],
    ids=["bare", "nested", "compiled", "average", "one attribute", "beside a teacher's head", "beside another"],
)
def test_what_programs_add_is_taken_off_and_no_tensor_is_copied(stored: dict[str, Any]) -> None:
    found = torchvision_weights(stored)
    assert all(found[name] is tensor for name, tensor in STATE.items())


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("resnet.embedder.embedder.convolution.weight", "conv1.weight"),
        ("resnet.embedder.embedder.normalization.running_var", "bn1.running_var"),
        ("resnet.encoder.stages.0.layers.0.shortcut.convolution.weight", "layer1.0.downsample.0.weight"),
        ("resnet.encoder.stages.3.layers.2.shortcut.normalization.bias", "layer4.2.downsample.1.bias"),
        ("resnet.encoder.stages.2.layers.5.layer.2.convolution.weight", "layer3.5.conv3.weight"),
        ("resnet.encoder.stages.2.layers.22.layer.0.normalization.weight", "layer3.22.bn1.weight"),
        ("classifier.1.bias", "fc.bias"),
    ],
)
def test_hugging_faces_names(theirs: str, ours: str) -> None:
    stem = "resnet.embedder.embedder.convolution.weight"
    for outer in ("", "model."):
        found = torchvision_weights({outer + stem: torch.zeros(1), outer + theirs: torch.ones(1)})
        assert found[ours] == 1


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ([1, 2], "it has no fc.weight, but a list"),
        ({}, "it has no fc.weight, but nothing"),
        ({"epoch": 3, "args": 1}, "it has no fc.weight, but epoch, args"),
        ({"a.weight": torch.zeros(1)}, "it has no fc.weight and conv1.weight, but 1 tensors such as a.weight"),
        (prefixed("a.") | prefixed("b."), "it must hold one network, got 2, below a. and b."),
    ],
)
def test_what_holds_no_network_is_one_sentence(stored: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        torchvision_weights(stored)


def test_a_misfit_is_counted_by_kind_with_a_few_names() -> None:
    counted = {name: tensor for name, tensor in STATE.items() if not name.endswith("num_batches_tracked")}
    assert misfit(NET, STATE) is None
    assert misfit(NET, counted) is None, "num_batches_tracked is no weight"
    total = len(counted)
    lacking = {name: tensor for name, tensor in counted.items() if not name.startswith("fc.")}
    assert misfit(NET, lacking) == f"2 of {total} are missing (fc.weight, fc.bias)"
    other = counted | {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(()), "head.weight": torch.zeros(1)}
    assert misfit(NET, other) == (
        f"1 of {total} are unknown (head.weight); 2 of {total} have another shape "
        "(fc.weight is 7x512, not 1000x512, fc.bias is a number, not 1000)"
    )
    assert str(misfit(NET, {})).startswith(f"{total} of {total} are missing (conv1.weight, bn1.weight, bn1.bias, ...)")
