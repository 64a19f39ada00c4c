"""A recipe is one validated object: what does not fit together is one sentence, and lengths become steps here."""

from typing import Any

import pytest

from resnet.recipes.named import recipe
from resnet.recipes.recipe import Recipe


def test_exact_batch_norm_statistics_come_from_at_most_one_epoch() -> None:
    paper = recipe("imagenet-resnet50")
    assert (paper.bn_steps(1_281_167), paper.bn_steps(5_000)) == (200, 19)
    assert recipe("cifar10-resnet20").bn_steps(50_000) == 0


def test_a_step_that_needs_the_host_says_why() -> None:
    cifar = recipe("cifar10-resnet20")
    assert cifar.uncaptured is None
    assert recipe("imagenet-resnet50").uncaptured == "images.policy is scale-jitter, which streams its images"
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"loss": {"cutmix": 1.0}}, "images are mixed"),
        ({"precision": "float16"}, "float16 has a loss scale"),
    )
    for changes, why in cases:
        said = Recipe(**cifar.model_dump() | changes).uncaptured
        assert said == why


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
        ({"epochs": None, "steps": None}, "one of epochs and steps"),
        ({"ema": 1}, "ema must be less than 1, got 1"),
        ({"bn_batch": 48}, "bn_batch must divide optim.batch_size, 128, got 48"),
        ({"bn_examples": 100}, "bn_examples must be at least optim.batch_size, 128, got 100"),
        (
            {"network": "cifar10-plain20", "zero_init_last_bn": True},
            "zero_init_last_bn must be False for cifar10-plain20",
        ),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_field(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        Recipe(**recipe("cifar10-resnet20").model_dump() | change)
    assert "\n" not in str(caught.value)


def test_a_batch_larger_than_the_set_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at most the number of training images, 100, got 128"):
        recipe("cifar10-resnet20").total_steps(100)
