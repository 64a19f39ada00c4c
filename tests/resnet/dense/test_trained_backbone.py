import pytest
import torch

from resnet import build
from resnet.dense.trained_backbone import backbone
from resnet.image_class import ImageClass
from resnet.recipes.named import recipe
from resnet.training.checkpoint import Checkpoint, Progress, save_checkpoint


@pytest.fixture
def checkpoint():
    torch.manual_seed(1)
    net = build("cifar10-resnet8-A", 2)
    classes = tuple(ImageClass(id=i, wnid=name, name=name) for i, name in enumerate("ab"))
    run = {"recipe": recipe("cifar10-resnet8-A").model_dump(mode="json")}
    pixels = {"mean": torch.zeros(3, 1, 1), "std": torch.ones(3, 1, 1)}
    return Checkpoint(net.state_dict(), {}, pixels, run, Progress(step=0, total_steps=0, examples=0, classes=classes))


def test_a_name_a_checkpoint_its_folder_and_a_network_are_the_same_backbone(checkpoint, tmp_path):
    images = torch.randn(1, 3, 32, 32)
    features = checkpoint.network().features(images)
    save_checkpoint(tmp_path / "saved", checkpoint)
    for source in (checkpoint, tmp_path / "saved", str(tmp_path / "saved"), checkpoint.network()):
        assert torch.allclose(backbone(source)(images)["C4"], features, atol=1e-5)
    torch.manual_seed(2)
    wanted = build("cifar10-resnet8-A")
    torch.manual_seed(2)
    assert torch.equal(backbone("cifar10-resnet8-A").conv1.weight, wanted.conv1.weight)


def test_what_is_neither_is_named(tmp_path):
    with pytest.raises(ValueError, match="network must be"):
        backbone("resnet18")
    with pytest.raises(ValueError, match=r"a checkpoint must hold model.safetensors"):
        backbone(tmp_path)
