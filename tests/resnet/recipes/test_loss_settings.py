"""The loss refuses what has no effect, and what it needs and has not."""

import importlib.util
from typing import Any

import pytest

from resnet.recipes.loss_settings import Loss, require_arcface
from resnet.recipes.named import recipe
from resnet.recipes.recipe import Recipe

ANGULAR = {"kind": "arcface"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"label_smoothing": 1}, "label_smoothing must be less than 1, got 1"),
        ({"mixup": 0}, "mixup must be greater than 0, got 0"),
        ({"margin": 0.3}, "margin has no effect with kind cross-entropy, got 0.3"),
        ({"scale": 30}, "scale has no effect with kind cross-entropy, got 30"),
        (ANGULAR | {"label_smoothing": 0.1}, "label_smoothing has no effect with kind arcface, got 0.1"),
        (ANGULAR | {"mixup": 0.2}, "mixup has no effect with kind arcface, got 0.2"),
        (ANGULAR | {"cutmix": 1.0}, "cutmix has no effect with kind arcface, got 1.0"),
        (ANGULAR | {"margin": 28.6}, "margin must be less than 1.57"),
        (ANGULAR | {"scale": 0}, "scale must be greater than 0, got 0"),
        ({"kind": "cosface"}, "kind must be 'cross-entropy' or 'arcface', got 'cosface'"),
    ],
)
def test_a_setting_without_an_effect_is_one_sentence(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}") as caught:
        Loss(**fields)
    assert "\n" not in str(caught.value)


def test_a_recipe_of_before_there_was_a_kind_is_cross_entropy() -> None:
    fields: dict[str, Any] = recipe("imagenet-resnet18@90").model_dump()
    fields["loss"] = {"label_smoothing": 0.1, "mixup": None, "cutmix": None}
    assert Recipe(**fields) == recipe("imagenet-resnet18@90")
    assert not Recipe(**fields).loss.is_angular
    assert Loss(kind="arcface", class_weights=True).is_angular


def test_the_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^loss.kind arcface needs the package pytorch-metric-learning, .*`uses` has"):
        require_arcface()
