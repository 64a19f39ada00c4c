"""The trained weights that a run begins with, as --init names them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18, resnet34

from jobs import train_imagenet
from pipelines import command_line
from pipelines.models.initial_weights import as_wanted, begin_from, initial_checkpoint, start_of
from pipelines.run import Run, standard
from pipelines.shards.manifest import read_manifest
from resnet.recipes.named import recipe
from resnet.training.checkpoint import load_checkpoint

NETWORK = "imagenet-resnet18-B-v1.5"
TIMM = {"architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 192, 192], "crop_pct": 0.95,
        "interpolation": "bicubic", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.25]}}  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as timm's models have it on the hub: seven classes, without names."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    save_file(resnet18(num_classes=7).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(TIMM))
    return folder


def test_the_weights_say_how_their_images_are_prepared_and_words_of_the_command_win(weights: Path) -> None:
    words = ["--init", str(weights), "--seed", "3", "--recipe.images.size", "64"]
    start, rest = start_of(f"{NETWORK}@finetune", words, True)
    assert rest == words[2:]
    assert (start.init, start.init_sha256) == (
        str(weights),
        hashlib.sha256((weights / "model.safetensors").read_bytes()).hexdigest(),
    )
    images = start.recipe.images
    assert (images.size, images.eval_side, images.eval_interpolation) == (192, 202, "bicubic")  # 192 / 0.95
    assert images.pixel_mean == pytest.approx((0.5, 0.4, 0.3))
    assert images.pixel_std == pytest.approx((0.2, 0.2, 0.25))
    assert images.area == recipe(f"{NETWORK}@finetune").images.area, "crops of the training are the recipe's"
    run = command_line.parse_arguments(Run, start, rest, None)
    assert (run.recipe.images.size, run.recipe.images.eval_side) == (64, 67)
    assert run.init_sha256 == start.init_sha256
    assert Run.model_validate_json(run.model_dump_json()) == run
    assert start_of(f"{NETWORK}@finetune", [f"--init={weights}"], True)[0] == start


def test_a_checkpoint_of_ours_goes_on_with_its_own_mean(untrained: Any) -> None:
    (checkpoint,) = untrained(0).glob("step-*")
    run = begin_from(standard("cifar10-resnet8@finetune", init=str(checkpoint)))
    assert run.init_sha256 == hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert run.recipe.images.pixel_mean == pytest.approx((80 / 255,) * 3)
    assert run.recipe.images.pixel_std == pytest.approx((60 / 255,) * 3)


def test_the_first_checkpoint_has_their_weights_and_a_new_classifier_by_the_seed(weights: Path, digits: str) -> None:
    data, found = read_manifest(digits), []
    for seed in (0, 0, 1):
        run = begin_from(standard(f"{NETWORK}@finetune", init=str(weights)))
        state = torch.get_rng_state()
        checkpoint, sentence = initial_checkpoint(run.model_copy(update={"seed": seed}), data, 1437, 360)
        assert torch.equal(torch.get_rng_state(), state)
        assert sentence == "the classifier is new: 7 classes of the weights, 10 of the data"
        assert checkpoint.progress.step == 0
        assert checkpoint.run["init_sha256"] == run.init_sha256
        found.append(checkpoint.network())
    torch.manual_seed(0)
    theirs = resnet18(num_classes=7)
    assert torch.equal(found[0].conv1.weight, theirs.conv1.weight)
    assert torch.equal(found[0].fc.weight, found[1].fc.weight)
    assert not torch.equal(found[0].fc.weight, found[2].fc.weight)
    assert tuple(found[0].fc.weight.shape) == (10, 512)


def test_the_classifier_of_the_same_classes_goes_on(untrained: Any, digits: str) -> None:
    (place,) = untrained(0).glob("step-*")
    data = read_manifest(digits)
    run = begin_from(standard("cifar10-resnet8@finetune", init=str(place)))
    checkpoint, sentence = initial_checkpoint(run, data, 1437, 360)
    assert sentence == "the classifier of the weights goes on: the same 10 classes"
    before = load_checkpoint(place).model
    assert all(torch.equal(before[name], tensor) for name, tensor in checkpoint.model.items())
    backwards = data.model_copy(
        update={"classes": tuple(c.model_copy(update={"id": i}) for i, c in enumerate(reversed(data.classes)))}
    )
    turned, sentence = initial_checkpoint(run, backwards, 1437, 360)
    assert sentence == "the classifier begins with 10 of the 10 classes of the weights"
    assert torch.equal(turned.model["fc.weight"], before["fc.weight"].flip(0))


def test_sizes_of_a_network_of_small_images_say_nothing_to_a_streamed_recipe(untrained: Any) -> None:
    from pipelines.models.by_name import open_checkpoint

    (place,) = untrained(0).glob("step-*")
    wanted = as_wanted(recipe("imagenet-resnet18@finetune").images, open_checkpoint(str(place))[0])
    assert (wanted.size, wanted.eval_shorter_side, wanted.mean) == (224, 256, "given")


def test_weights_that_changed_since_are_refused(weights: Path, digits: str) -> None:
    run = begin_from(standard(f"{NETWORK}@finetune", init=str(weights))).model_copy(update={"init_sha256": "0" * 64})
    with pytest.raises(ValueError, match=r"init_sha256 must be that of .*, got 0000"):
        initial_checkpoint(run, read_manifest(digits), 1437, 360)


@pytest.mark.parametrize(
    ("recipe", "words", "sentence"),
    [
        ("imagenet-resnet18-B@finetune", [], r"init must be given with recipe imagenet-resnet18-B@finetune"),
        (NETWORK, ["--recipe.finetune.frozen", "layer1"], r"init must be given with recipe"),
        (f"{NETWORK}@finetune", ["--init"], r"init must be a checkpoint, .* got nothing"),
        (f"{NETWORK}@finetune", ["--init", "nowhere.pth"], r"no file of weights at .*nowhere.pth"),
        (f"{NETWORK}@finetune", ["--init", "nowhere"], r"must be a checkpoint, a file of weights, or a name"),
        (f"{NETWORK}@finetune", ["--init", "34"], r"init must be weights of \S*18\S*, got weights of \S*34\S*: "),
        ("imagenet-resnet50-B@finetune", ["--init", "18"], r"init must be weights of \S*50\S*, got weights of \S*18"),
        ("imagenet-resnet18-A@finetune", ["--init", "18"], r"init must be weights of \S*18-A, got weights of \S*18-B"),
        ("imagenet-resnet34-B@finetune", ["--init", "bare"], r"does not fit the weights .*: 80 of 182 are missing"),
        ("cifar10-resnet20@finetune", ["--init", "ours"], r"weights of cifar10-resnet20-A, got .* cifar10-resnet8-A"),
        (f"{NETWORK}@finetune", ["--init", "18", "--recipe.finetune.frozen", "layer5"],
         r"finetune.frozen must be one of none, stem, layer1, layer2, layer3, layer4 for \S+, got 'layer5'"),
        ("cifar10-resnet8@finetune", ["--init", "ours", "--recipe.finetune.frozen", "layer4"],
         r"frozen must be one of none, stem, layer1, layer2, layer3 for"),
        (f"{NETWORK}@finetune", ["--init", "18", "--resume", "/elsewhere"], r"init has no effect with resume"),
        (f"{NETWORK}@finetune", ["--init", "18", "--recipe.finetune.head", "kept"],
         r"finetune.head must be new or auto .* do not say what their outputs mean"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_before_any_cluster_is_taken(
    recipe: str, words: list[str], sentence: str, weights: Path, tmp_path: Path, untrained: Any, digits: str
) -> None:
    places = {"18": weights, "34": tmp_path, "bare": tmp_path / "bare.pth", "ours": next(untrained(0).glob("step-*"))}
    if "34" in words:
        save_file(resnet34(num_classes=3).state_dict(), tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(TIMM | {"architecture": "resnet34"}))
    if "bare" in words:
        torch.save(resnet18(num_classes=3).state_dict(), tmp_path / "bare.pth")
    given = [str(places.get(word, word)) for word in words]
    with pytest.raises(ValueError, match=sentence) as caught:
        train_imagenet.job([recipe, "--data.path", digits, "--storage", str(tmp_path / "runs"), *given])
    assert "\n" not in str(caught.value)
