"""The job as users start it, with mistakes; a training is in tests/pipelines/dense."""

import subprocess
import sys
from pathlib import Path

import pytest

from jobs import train_detector

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "data.path"),
        (["--data.path", "/nowhere"], "/nowhere holds no shards"),
        (["--data.path", "/nowhere", "--recipe.head", "yolo"], "recipe.head"),
        (["--data.path", "/nowhere", "--recipe.network", "cifar10-resnet20"], "must be of the imagenet family"),
        (["--data.path", "/nowhere", "--recipe.crop", "32"], "Unrecognized options: --recipe.crop"),
        (["--data.path", "/nowhere", "--backbone", "nobody"], "model must be a checkpoint"),
    ],
)
def test_a_mistake_is_one_sentence(words, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        train_detector.job(words)
    assert "\n" not in str(caught.value)


def test_as_a_program_it_ends_with_status_2():
    words = [sys.executable, "jobs/train_detector.py", "--data.path", "/nowhere"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("train_detector.py: /nowhere holds no shards")
