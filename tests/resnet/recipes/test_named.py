"""Recipes by name hold the paper's hyper-parameters and those of the common baselines."""

import pytest

from resnet import names
from resnet.recipes.named import VARIANTS, recipe
from resnet.recipes.recipe import Recipe


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


@pytest.mark.parametrize(("family", "variant"), VARIANTS)
def test_every_variant_of_every_network_is_valid_and_its_json_lossless(family: str, variant: str) -> None:
    for network in (name for name in names() if name.startswith(family)):
        r = recipe(f"{network}@{variant}")
        assert Recipe.model_validate_json(r.model_dump_json()) == r
        assert r.name == (network if variant == "paper" else f"{network}@{variant}")
        assert r.zero_init_last_bn == (variant == "fast" and "plain" not in network)


def test_the_common_baseline_of_resnet50() -> None:
    r = recipe("imagenet-resnet50-B-v1.5@90")
    assert (r.epochs, r.images.policy, r.images.area, r.images.mean) == (
        90,
        "random-resized-crop",
        (0.08, 1),
        "per-channel",
    )
    assert (r.optim.lr, r.optim.batch_size, r.optim.weight_decay, r.optim.decay_norm_and_bias) == (
        0.1,
        256,
        1e-4,
        False,
    )
    assert (r.loss.label_smoothing, r.schedule.kind, 90 * r.schedule.warmup) == (0.1, "cosine", pytest.approx(5))
    steps = recipe("imagenet-resnet50-B-v1.5@90-step")
    assert [90 * m for m in steps.schedule.milestones] == pytest.approx([30, 60, 80])
    assert steps.model_copy(update={"schedule": r.schedule, "variant": "90"}) == r


def test_faces_are_fine_tuned_by_angles() -> None:
    r, tuned = recipe("imagenet-resnet18@arcface"), recipe("imagenet-resnet18@finetune")
    assert (r.loss.kind, r.loss.label_smoothing, r.epochs) == ("arcface", 0, 60)
    assert r.model_copy(update={"loss": tuned.loss, "epochs": tuned.epochs, "variant": "finetune"}) == tuned


def test_an_unknown_variant_names_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"must be one of .*paper.*, got 'foo'"):
        recipe("cifar10-resnet20@foo")
