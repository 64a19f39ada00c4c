"""The job of a cross-validation: its mistakes, each one sentence."""

import pytest

from jobs import train_folds


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "RECIPE must come first"),
        (["--data.path", "FOLDS"], "RECIPE must come first"),
        (["cifar10-resnet8"], r"data\.path must be given: the folder of jobs/write_shards\.py --folds K --out"),
        (["cifar10-resnet8", "--data.path", "/nowhere"], r"/nowhere has no fold-1 with shards"),
        (["cifar10-resnet8", "--data.path", "/nowhere", "--seeds", "a"], "seeds"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        train_folds.job(words)
    assert "\n" not in str(caught.value)
