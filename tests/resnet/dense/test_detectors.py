import numpy as np
import pytest
import torch
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from resnet.dense.dense_recipe import DetectionRecipe
from resnet.dense.detectors import Detections, as_input, as_target, build_detector
from resnet.dense.targets import Boxes

MEAN, STD = torch.tensor([123.7, 116.3, 103.5]), torch.tensor([58.4, 57.1, 57.4])
CPU = torch.device("cpu")


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (70, 90, 3)).astype(np.uint8)


def test_torchvision_s_own_detector_has_the_same_weights_and_answers(image):
    """fasterrcnn_resnet50_fpn: its state goes into ours by name, and the answers are the same."""
    torch.manual_seed(0)
    mean, std = ([value / 255 for value in values.tolist()] for values in (MEAN, STD))
    theirs = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=4, min_size=64, max_size=96, image_mean=mean, image_std=std
    )
    recipe = DetectionRecipe(network="imagenet-resnet50-B-v1.5", size=64, longest=96, anchor=32)
    ours = build_detector(recipe, 3, MEAN, STD)
    state = {name: tensor for name, tensor in theirs.state_dict().items() if "num_batches" not in name}
    ours.load_state_dict(state)
    wanted, found = (network.eval()([as_input(image, CPU)])[0] for network in (theirs, ours))
    assert len(wanted["boxes"]) > 0
    for name, tensor in wanted.items():
        assert torch.allclose(found[name].float(), tensor.float(), rtol=1e-4, atol=1e-4), name


def test_retinanet_trains_the_stages_that_are_asked_for(image):
    recipe = DetectionRecipe(network="imagenet-resnet18", head="retinanet", size=64, width=16, trained_stages=1)
    network = build_detector(recipe, 2, MEAN, STD)
    losses = network([as_input(image, CPU)], [as_target(Boxes.of([[5, 5, 60, 40]], [1]), CPU)])
    torch.stack(list(losses.values())).sum().backward()
    trained = {name.split(".")[2] for name, p in network.named_parameters() if "body" in name and p.grad is not None}
    assert trained == {"layer4"}


def test_labels_are_moved_past_the_background_and_back():
    target = as_target(Boxes.of([[0, 0, 2, 2]], [0]), CPU)
    assert target["labels"].tolist() == [1]
    found = Detections.of({**target, "scores": torch.tensor([0.5])})
    assert found.labels.tolist() == [0]
    assert found.boxes.tolist() == [[0, 0, 2, 2]]
