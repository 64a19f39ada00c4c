"""The border between a command line and typed objects, as a shell sees it."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.command_line import parse_arguments
from pipelines.run import Run, standard

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("job", sorted(path.stem for path in (ROOT / "jobs").glob("*_*.py") if path.stem != "__init__"))
def test_help_that_is_cut_off_by_head_ends_quietly(job: str) -> None:
    command = f"set -o pipefail; {sys.executable} jobs/{job}.py --help | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage")


def test_a_mistake_is_one_sentence_and_status_2() -> None:
    command = [sys.executable, "jobs/train_imagenet.py", "cifar10-resnet9"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "resnet9" in done.stderr


@pytest.mark.parametrize("data_is_given", [False, True])
@pytest.mark.parametrize(
    ("words", "epochs", "steps"),
    [(["--recipe.steps", "10"], None, 10), (["--recipe.epochs=2"], 2.0, None), (["--recipe.epochs", "2"], 2.0, None)],
)
def test_the_length_that_is_given_wins_over_the_recipes_own(
    words: list[str], epochs: float | None, steps: int | None, data_is_given: bool
) -> None:
    """The paper's recipes count steps, the digits', @90 and @fast epochs."""
    start = standard("cifar10-resnet20", data_is_given=data_is_given)
    run = parse_arguments(Run, start, words, None)
    assert (run.recipe.epochs, run.recipe.steps) == (epochs, steps)


def test_two_lengths_are_one_too_many() -> None:
    start = standard("cifar10-resnet20", data_is_given=False)
    with pytest.raises(ValueError, match=r"one of recipe\.epochs and recipe\.steps must be given, got both"):
        parse_arguments(Run, start, ["--recipe.steps", "10", "--recipe.epochs", "2"], None)
