import json
import os
import shutil

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from pipelines.imagenet_classes import wnids
from pipelines.models import keep_examples, label_map, open_models, output_names, read_checkpoint
from resnet.classes import ImageClass
from resnet.net import build
from resnet.recipe import Images

V15 = "imagenet-resnet18-B-v1.5"
IMAGES = Images(size=224, policy="random-resized-crop", area=(0.08, 1.0), eval_shorter_side=256, mean="per-channel")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """torchvision's ResNet-18 with random weights: as it stores them, as its scripts do, as safetensors."""
    folder, state = tmp_path_factory.mktemp("weights"), resnet18().state_dict()
    torch.save(state, folder / "plain.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, folder / "wrapped.pth")
    save_file(state, folder / "plain.safetensors")
    return folder


@pytest.mark.parametrize("name", ["plain.pth", "old.pth", "wrapped.pth", "plain.safetensors"])
def test_torchvisions_weights_open_with_its_mean_and_std(weights, name):
    (model,) = open_models([str(weights / name)], V15)
    torch.testing.assert_close(model.mean.flatten() / 255, torch.tensor([0.485, 0.456, 0.406]))
    torch.testing.assert_close(model.std.flatten() / 255, torch.tensor([0.229, 0.224, 0.225]))
    assert (model.images.size, model.images.eval_shorter_side) == (224, 256)
    assert model.classes is not None
    assert [c.wnid for c in model.classes] == list(wnids())
    x = torch.randn(2, 3, 64, 64)
    theirs = resnet18()
    theirs.load_state_dict(torch.load(weights / "plain.pth", weights_only=True))
    torch.testing.assert_close(model.build()(x), theirs.eval()(x))


def test_weights_that_could_run_code_are_refused(tmp_path):
    class Exploit:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    torch.save({"fc.weight": torch.zeros(1000, 512), "x": Exploit()}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth holds no weights that can be read safely"):
        open_models([str(tmp_path / "x.pth")], V15)
    assert not (tmp_path / "pwned").exists()


def test_mistakes_are_sentences(weights, tmp_path, untrained):
    plain = str(weights / "plain.pth")
    with pytest.raises(ValueError, match=r"network must say what .*plain\.pth holds"):
        open_models([plain])
    with pytest.raises(ValueError, match=r"network imagenet-resnet34-B does not fit the weights of .*layer1\.2"):
        open_models([plain], "imagenet-resnet34-B")
    with pytest.raises(ValueError, match="must be named"):
        open_models([])
    with pytest.raises(ValueError, match="no file of weights at"):
        open_models([str(tmp_path / "none.pth")], V15)
    for junk in ("junk.pth", "junk.safetensors"):
        (tmp_path / junk).write_bytes(b"junk")
        with pytest.raises(ValueError, match=f"{junk} holds no weights"):
            open_models([str(tmp_path / junk)], V15)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"it has no fc\.weight"):
        open_models([str(tmp_path / "other.safetensors")], V15)
    with pytest.raises(ValueError, match="a checkpoint knows its own"):
        open_models([str(next(untrained().glob("step-*")))], V15)
    with pytest.raises(ValueError, match=r"holds several: the last is .*step-00000264"):
        open_models([str(untrained())])
    with pytest.raises(ValueError, match=r"such as resnet@champion, got nothing/here"):
        open_models(["nothing/here"])
    with pytest.raises(ValueError, match="model must be registered, got 'resnet@nobody'"):
        open_models(["resnet@nobody"])


def test_a_checkpoint_opens_by_folder_and_by_uri(untrained):
    checkpoint = next(untrained().glob("step-*"))
    (model,) = open_models([str(checkpoint)])
    assert (model.network, model.images.size, model.outputs) == ("cifar10-resnet8-A", 32, 10)
    (by_uri,) = open_models([checkpoint.as_uri()])
    assert all(torch.equal(by_uri.weights[name], tensor) for name, tensor in model.weights.items())
    assert read_checkpoint(str(checkpoint)).run["seed"] == 0


def test_labels_are_matched_by_wordnet_id():
    known = ImageClass(id=0, wnid="n03888257", name="parachute"), ImageClass(id=1, wnid="n01440764", name="tench")
    net = build(V15)
    from resnet.protocols import Model

    classes = tuple(ImageClass(id=i, wnid=w, name=w) for i, w in enumerate(wnids()))
    model = Model("m", V15, net.state_dict(), torch.zeros(3, 1, 1), torch.ones(3, 1, 1), IMAGES, classes)
    assert label_map(model, known) == [701, 0]
    assert output_names(model, known)[700:702] == (wnids()[700], "parachute")
    with pytest.raises(ValueError, match=r"m does not know class x1 \(a thing\)"):
        label_map(model, [ImageClass(id=0, wnid="x1", name="a thing")])
    nameless = Model(**{**vars(model), "classes": None})
    assert output_names(nameless, classes) == wnids()
    assert label_map(nameless, classes) == list(range(1000))
    with pytest.raises(ValueError, match="tells 1000 classes apart, the data have 2"):
        label_map(nameless, known)


def test_nothing_of_this_machine_is_in_a_row(untrained):
    from pipelines.results import row_of

    row = row_of(str(untrained()))
    assert str(untrained().parent) not in row.model_dump_json()
    assert json.loads(row.model_dump_json())["data"]["name"] == "digits"


def test_examples_are_kept_where_val_is_a_part_of_train(untrained, digits, tmp_path):
    """Shards without a val split: errors were those of a held-out part of train."""
    shutil.copytree(digits, tmp_path / "shards")
    manifest = json.loads((tmp_path / "shards" / "manifest.json").read_text())
    manifest["shards"] = [shard for shard in manifest["shards"] if shard["split"] == "train"]
    (tmp_path / "shards" / "manifest.json").write_text(json.dumps(manifest))
    checkpoint = tmp_path / "step-00000001"
    shutil.copytree(next(untrained().glob("step-*")), checkpoint)
    keep_examples(str(checkpoint), str(tmp_path / "shards"))
    examples = read_checkpoint(str(checkpoint)).examples
    assert examples is not None
    assert len(examples["images"]) == 8
