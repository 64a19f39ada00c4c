import pytest
import torch

from resnet.dense.dense_checkpoint import DenseCheckpoint, DenseProgress, DenseRow, build_dense, load_dense
from resnet.dense.dense_recipe import DetectionRecipe, SegmentationRecipe
from resnet.image_class import ImageClass
from resnet.training.checkpoint import load_checkpoint, save_checkpoint

ROW = DenseRow(epoch=0, step=3, lr=0.1, train_loss=1.5, mean_ap=40.0, seconds=1.0, images_per_second=2.0)
RECIPES = {
    "detection": DetectionRecipe(network="imagenet-resnet18", size=64, width=16),
    "segmentation": SegmentationRecipe(network="imagenet-resnet18", size=64, auxiliary=0),
}


@pytest.fixture(params=list(RECIPES))
def checkpoint(request):
    recipe = RECIPES[request.param]
    pixels = {"mean": torch.full((3, 1, 1), 100.0), "std": torch.full((3, 1, 1), 50.0)}
    classes = tuple(ImageClass(id=i, wnid=name, name=name) for i, name in enumerate("ab"))
    progress = DenseProgress(step=3, total_steps=3, examples=4, classes=classes, rows=(ROW,))
    torch.manual_seed(0)
    model = build_dense(recipe, 2, pixels["mean"], pixels["std"]).state_dict()
    return DenseCheckpoint(model, {}, pixels, {"recipe": recipe.model_dump(mode="json")}, progress)


def test_it_survives_the_disk_and_gives_its_network(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "saved", checkpoint)
    found = load_dense(tmp_path / "saved")
    assert found.recipe == checkpoint.recipe
    assert found.progress.quality == 40.0
    network = found.network()
    assert not network.training
    assert all(torch.equal(tensor, checkpoint.model[name]) for name, tensor in network.state_dict().items())


def test_readers_of_other_tasks_say_so(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "saved", checkpoint)
    task = checkpoint.recipe.task
    with pytest.raises(ValueError, match=f"a checkpoint must be of classification here, got one of {task}"):
        load_checkpoint(tmp_path / "saved")
    checkpoint.run = {"recipe": {"network": "imagenet-resnet18-A"}}
    save_checkpoint(tmp_path / "other", checkpoint)
    with pytest.raises(ValueError, match="must be of detection or segmentation here, got one of classification"):
        load_dense(tmp_path / "other")


def test_weights_of_another_network_are_refused(checkpoint):
    checkpoint.model = {"conv1.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match="must hold its weights"):
        checkpoint.network()
