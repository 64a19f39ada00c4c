import pytest
import torch

from pipelines.dense.dense_data import open_dense
from pipelines.dense.dense_saving import DenseStore
from pipelines.dense.initial_backbone import begin_with_backbone, by_channel, identified_backbone, with_its_network
from resnet import build
from resnet.image_class import ImageClass
from resnet.recipes.named import recipe
from resnet.training.checkpoint import Checkpoint, Progress, save_checkpoint
from tests.pipelines.dense.small_sets import small_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of a classification with ResNet-18."""
    torch.manual_seed(7)
    classes = tuple(ImageClass(id=i, wnid=name, name=name) for i, name in enumerate("abc"))
    run = {"recipe": recipe("imagenet-resnet18@90").model_dump(mode="json")}
    pixels = {"mean": torch.full((3, 1, 1), 100.0), "std": torch.full((3, 1, 1), 50.0)}
    progress = Progress(step=0, total_steps=0, examples=0, classes=classes)
    folder = tmp_path_factory.mktemp("trained") / "net"
    save_checkpoint(folder, Checkpoint(build("imagenet-resnet18", 3).state_dict(), {}, pixels, run, progress))
    return folder


def test_the_run_begins_with_the_stages_of_its_backbone(trained, shards, tmp_path):
    run = identified_backbone(small_run(shards, tmp_path, backbone=str(trained)))
    assert run.backbone_sha256 is not None
    pixels, sentence = begin_with_backbone(run, open_dense(run))
    assert sentence == f"{run.name} begins with the stages of {trained}"
    assert pixels["mean"].tolist() == [100, 100, 100]
    (name,) = DenseStore.of_dense(run).names()
    assert name == "step-00000000"
    found = DenseStore.of_dense(run).read(name).model
    torch.manual_seed(7)
    place = "backbone.body" if run.recipe.task == "detection" else "network.backbone"
    for key, tensor in build("imagenet-resnet18", 3).state_dict().items():
        if not key.startswith("fc.") and "num_batches" not in key:
            assert torch.equal(found[f"{place}.{key}"], tensor)
    assert begin_with_backbone(run, open_dense(run))[1] == f"{run.name} goes on from step 0"


def test_the_backbone_s_network_is_the_run_s_unless_one_is_named(trained, boxed, tmp_path):
    run = small_run(boxed, tmp_path, backbone=str(trained))
    run = run.model_copy(update={"recipe": run.recipe.model_copy(update={"network": "imagenet-resnet50-B"})})
    assert with_its_network(run, []).recipe.network == "imagenet-resnet18-A"
    assert with_its_network(run, ["--recipe.network=imagenet-resnet50-B"]).recipe.network == "imagenet-resnet50-B"
    with pytest.raises(ValueError, match="must be weights of imagenet-resnet50-B, got weights of imagenet-resnet18-A"):
        identified_backbone(run)


def test_by_channel():
    assert by_channel(torch.arange(12.0).reshape(3, 2, 2)).flatten().tolist() == [1.5, 5.5, 9.5]
