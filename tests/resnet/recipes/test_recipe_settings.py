"""Settings refuse what has no effect, and lengths and times follow from them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet.frozen import Frozen
from resnet.recipes.named import recipe
from resnet.recipes.recipe_settings import Images, Optim, Schedule

STREAMED = {"policy": "random-resized-crop", "area": (0.08, 1.0), "eval_shorter_side": 256, "mean": "per-channel"}


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


def test_lengths_scale_with_the_crop() -> None:
    images = Images(size=128, policy="scale-jitter", shorter_side=(256, 480), eval_shorter_side=256)
    assert [images.scaled(side) for side in (256, 480)] == [146, 274]


PADDED = {"size": 32, "policy": "pad-crop", "pad": 4}


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (Images, {"size": 32, "policy": "pad-crop"}, "policy pad-crop needs pad"),
        (Images, {**PADDED, "area": (0.1, 1)}, "area has an effect with policy random-resized-crop only"),
        (Images, {**PADDED, "eval_size": 40}, "eval_size has an effect with streamed policies only"),
        (Images, {**PADDED, "resize": (16, 0.5)}, "resize has an effect with streamed policies only"),
        (Images, {**PADDED, "pad": 0, "border": "mean"}, "border has an effect with a pad above 0 only"),
        (Images, {**STREAMED, "size": 64, "border": "mean"}, "border has an effect with a pad above 0 only"),
        (Images, {**PADDED, "color": "pca-std"}, "color has an effect with streamed policies only"),
        (Images, {**PADDED, "eval_interpolation": "bicubic"}, "eval_interpolation has an effect with streamed"),
        (Images, {**PADDED, "eval_shorter_side": 36}, "eval_shorter_side is for scale-jitter"),
        (Images, {**STREAMED, "size": 64, "eval_size": 64}, "eval_size must differ from size, got 64 twice"),
        (Images, {**STREAMED, "size": 64, "resize": (64, 0.5)}, "resize must be a side from 8 to below size, 64"),
        (Images, {**STREAMED, "size": 64, "area": (0.5, 0.1)}, "area must be two positive numbers, the smaller first"),
        (Images, {**STREAMED, "size": 64, "eval_size": 80, "mean": "per-pixel"}, "eval_size needs mean per-channel"),
        (Optim, {"nesterov": True, "momentum": 0}, "nesterov has no effect with momentum 0"),
        (Optim, {"weight_decay": 0, "decay_norm_and_bias": False}, "decay_norm_and_bias must be True with"),
        (Schedule, {"kind": "cosine", "gamma": 0.1}, "gamma has no effect with kind cosine"),
        (Schedule, {"kind": "plateau", "gamma": 0.1}, "kind plateau needs patience"),
        (Schedule, {"kind": "step", "gamma": 0.1, "milestones": (0.7, 0.5)}, "milestones must rise between 0 and 1"),
        (Schedule, {"kind": "cosine", "gentle_lr": 0.01}, "gentle_lr and gentle_error go together"),
    ],
)
def test_a_setting_without_an_effect_is_one_sentence(kind: type[Frozen], fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}") as caught:
        kind(**fields)
    assert "\n" not in str(caught.value)


def test_the_learning_rate_is_for_the_batch_that_it_was_given_for() -> None:
    assert Optim(lr=0.1, batch_size=1024).peak_lr == 0.1
    assert Optim(lr=0.1, batch_size=1024, lr_batch_size=256).peak_lr == pytest.approx(0.4)
