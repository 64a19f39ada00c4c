"""The job that looks for settings: its mistakes, each one sentence."""

import pytest

from jobs import search_recipe


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["cifar10-resnet9"], "cifar10-resnet9"),
        (["cifar10-resnet8", "--lr", "1", "0.1"], "lr must be two positive numbers, the smaller first, got 1 0.1"),
        (["cifar10-resnet8", "--scheduler", "pbt", "--sampler", "grid"], "sampler has no effect with scheduler pbt"),
        (["cifar10-resnet8", "--data.holdout", "9999"], "holdout must leave training images"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        search_recipe.job(words)
    assert "\n" not in str(caught.value)
