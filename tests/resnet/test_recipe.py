"""Recipes hold the paper's hyper-parameters, survive JSON, and refuse what has no effect."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet import names
from resnet.recipe import VARIANTS, Images, Recipe, recipe

STREAMED = {"policy": "random-resized-crop", "area": (0.08, 1.0), "eval_shorter_side": 256, "mean": "per-channel"}


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


def test_images_grow_to_their_size_and_are_evaluated_larger() -> None:
    images = recipe("imagenet-resnet18@fast").images
    sizes = [images.size_at(epoch, 18) for epoch in range(18)]
    assert (sizes[0], sizes[-1], sorted(set(sizes)), sizes == sorted(sizes)) == (128, 176, [128, 144, 160, 176], True)
    assert images.at(0, 18).size == 128
    evaluated = images.for_evaluation()
    assert (evaluated.size, evaluated.scaled(256)) == (224, 256)
    assert Images(**evaluated.model_dump()) == evaluated
    assert Images(**images.at(3, 18).model_dump()) == images.at(3, 18)


@given(st.integers(32, 512), st.integers(8, 480), st.floats(0.01, 1), st.floats(0.5, 200), st.data())
def test_a_size_lies_between_the_first_and_the_last(
    size: int, start: int, until: float, epochs: float, data: st.DataObject
) -> None:
    images = Images(size=size, resize=(min(start, size - 1), until), **STREAMED)  # pyright: ignore[reportArgumentType]
    epoch = data.draw(st.integers(0, int(epochs)))
    assert min(start, size - 1) <= images.size_at(epoch, epochs) <= images.size_at(epoch + 1, epochs) <= size
    assert images.size_at(int(until * epochs) + 1, epochs) == size


def test_exact_batch_norm_statistics_come_from_at_most_one_epoch() -> None:
    paper = recipe("imagenet-resnet50")
    assert (paper.bn_steps(1_281_167), paper.bn_steps(5_000)) == (200, 19)
    assert recipe("cifar10-resnet20").bn_steps(50_000) == 0


def test_epochs_take_the_place_of_steps() -> None:
    two: dict[str, Any] = {"epochs": 2}
    r = Recipe(**recipe("cifar10-resnet20").model_dump() | two)
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
        ({"optim": {"nesterov": True, "momentum": 0}}, "optim.nesterov has no effect with momentum 0"),
        ({"optim": {"weight_decay": 0, "decay_norm_and_bias": False}}, "decay_norm_and_bias must be True with"),
        ({"images": {"size": 32, "policy": "pad-crop", "pad": 4, "eval_size": 40}}, "images.eval_size has an effect"),
        ({"images": {"size": 32, "policy": "pad-crop", "pad": 4, "resize": (16, 0.5)}}, "images.resize has an effect"),
        ({"images": {"size": 32, "policy": "pad-crop", "pad": 0, "border": "mean"}}, "border has an effect with a pad"),
        ({"images": {**STREAMED, "size": 64, "border": "mean"}}, "border has an effect with a pad"),
        ({"images": {"size": 32, "policy": "pad-crop", "pad": 4, "color": "pca-std"}}, "color has an effect with str"),
        ({"images": {**STREAMED, "size": 64, "eval_size": 64}}, "images.eval_size must differ from size, got 64"),
        ({"images": {**STREAMED, "size": 64, "resize": (64, 0.5)}}, "images.resize must be a side from 8 to below"),
        (
            {"images": {**STREAMED, "size": 64, "eval_size": 80, "mean": "per-pixel"}},
            "eval_size needs mean per-channel",
        ),
        ({"loss": {"label_smoothing": 1}}, "loss.label_smoothing must be less than 1, got 1"),
        ({"loss": {"mixup": 0}}, "loss.mixup must be greater than 0, got 0"),
        ({"ema": 1}, "ema must be less than 1, got 1"),
        ({"bn_examples": 100}, "bn_examples must be at least optim.batch_size, 128, got 100"),
        (
            {"network": "cifar10-plain20", "zero_init_last_bn": True},
            "zero_init_last_bn must be False for cifar10-plain20",
        ),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_field(change: dict[str, Any], words: str) -> None:
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
