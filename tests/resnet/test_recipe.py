"""Recipes hold the paper's hyper-parameters, survive JSON, and refuse what has no effect."""

import pytest

from resnet.recipe import Images, Recipe, recipe


def test_cifar10_recipe_is_section_4_2() -> None:
    r = recipe("cifar10-resnet56")
    assert r.name == "cifar10-resnet56-A"
    assert (r.optim.lr, r.optim.momentum, r.optim.weight_decay, r.optim.batch_size) == (0.1, 0.9, 1e-4, 128)
    assert r.total_steps(50_000) == 64_000
    assert [m * 64_000 for m in r.schedule.milestones] == [32_000, 48_000]
    assert (r.images.size, r.images.policy, r.images.pad, r.images.flip) == (32, "pad-crop", 4, True)


def test_only_110_layers_and_more_start_gently() -> None:
    assert recipe("cifar10-resnet56").schedule.gentle_lr is None
    assert recipe("cifar10-resnet110").schedule.gentle_lr == 0.01
    assert recipe("cifar10-resnet110").schedule.gentle_error == 80


def test_imagenet_recipe_is_section_3_4() -> None:
    r = recipe("imagenet-resnet50-B@paper")
    assert r.name == "imagenet-resnet50-B"
    assert (r.optim.batch_size, r.steps, r.schedule.kind, r.schedule.gamma) == (256, 600_000, "plateau", 0.1)
    assert (r.images.shorter_side, r.images.color, r.images.mean) == ((256, 480), "pca", "per-pixel")


@pytest.mark.parametrize("name", ["imagenet-resnet18", "imagenet-plain34", "cifar10-plain20", "cifar10-resnet110"])
def test_json_is_lossless(name: str) -> None:
    r = recipe(name)
    assert Recipe.model_validate_json(r.model_dump_json()) == r


def test_epochs_take_the_place_of_steps() -> None:
    r = Recipe(**recipe("cifar10-resnet20").model_dump() | {"epochs": 2})
    assert r.steps is None
    assert r.total_steps(50_000) == 2 * 390


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": "cifar10-resnet21"}, "cifar10-resnet21"),
        ({"optim": {"lr": -1}}, "optim.lr must be greater than 0, got -1"),
        ({"optim": {"rate": 1}}, "rate is no field"),
        ({"images": {"size": 32, "policy": "pad-crop"}}, "needs pad"),
        ({"images": {"size": 32, "policy": "pad-crop", "pad": 4, "area": (0.1, 1)}}, "area has an effect with policy"),
        ({"schedule": {"kind": "cosine", "gamma": 0.1}}, "gamma has no effect with kind cosine"),
        ({"schedule": {"kind": "step", "gamma": 0.1, "milestones": (0.7, 0.5)}}, "rise between 0 and 1"),
        ({"epochs": None, "steps": None}, "one of epochs and steps"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_field(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(")) as caught:
        Recipe(**recipe("cifar10-resnet20").model_dump() | change)
    assert "\n" not in str(caught.value)


def test_an_unknown_variant_names_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"must be one of .*paper.*, got 'foo'"):
        recipe("cifar10-resnet20@foo")


def test_lengths_scale_with_the_crop() -> None:
    images = Images(size=128, policy="scale-jitter", shorter_side=(256, 480), eval_shorter_side=256)
    assert [images.scaled(side) for side in (256, 480)] == [146, 274]


def test_a_batch_larger_than_the_set_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at most the number of training images, 100, got 128"):
        recipe("cifar10-resnet20").total_steps(100)
