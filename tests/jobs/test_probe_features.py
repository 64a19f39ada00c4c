"""The job as users start it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import probe_features

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data.path", "SHARDS"], "MODEL must come first"),
        (["nowhere.pth"], r"data\.path must be given"),
        (["nowhere.pth", "--data.path", "/nowhere"], r"no file of weights at nowhere\.pth"),
        (["resnet@champion", "--data.path", "/nowhere", "--strength", "0"], "strength must be greater than 0, got 0"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        probe_features.job(words)
    assert "\n" not in str(caught.value)


def test_help_teaches() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "jobs" / "probe_features.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "--class-weights" in done.stdout
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.stdout)
