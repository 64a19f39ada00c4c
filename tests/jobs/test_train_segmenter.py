"""The job as users start it, with mistakes; a training is in tests/pipelines/dense."""

import pytest

from jobs import train_segmenter


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data.path", "/nowhere"], "/nowhere holds no shards"),
        (["--data.path", "/nowhere", "--recipe.head", "faster-rcnn"], "recipe.head"),
        (["--data.path", "/nowhere", "--recipe.scales", "2", "1"], "scales must be two positive numbers"),
        (["--data.path", "/nowhere", "--recipe.anchor", "8"], "Unrecognized options: --recipe.anchor"),
    ],
)
def test_a_mistake_is_one_sentence(words, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        train_segmenter.job(words)
    assert "\n" not in str(caught.value)
