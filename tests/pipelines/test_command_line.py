"""The border between a command line and typed objects, as a shell sees it."""

import random
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from benchmarks.reliability.option_pairs import OPTIONS, leaves, start_of, won_or_refused
from pipelines.command_line import explained, parse_arguments, parse_run, with_run_name
from pipelines.evaluation.evaluate import Evaluation
from pipelines.models.verification_images import Export
from pipelines.prediction.prediction_worker import PredictionJob
from pipelines.preparation.preparation_options import Preparation
from pipelines.run import Run, standard
from pipelines.tuning.paper_sweep import Sweep
from pipelines.tuning.search_space import Search
from serve.deploy_settings import Deploy

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


def test_what_is_given_wins_or_is_refused() -> None:
    """Every option of a training alone, over the digits' recipe."""
    sentences = [s for option in OPTIONS if (s := won_or_refused(start_of("digits"), [option])) is not None]
    assert len(sentences) < len(OPTIONS) / 3, sentences


@pytest.mark.parametrize("start", ["digits", "cifar10-resnet20", "imagenet-resnet18@90", "imagenet-resnet18@fast"])
def test_of_two_that_are_given_both_win_or_one_is_refused(start: str) -> None:
    """Pairs drawn by a fixed seed; benchmarks/reliability/option_pairs.py tries all of them."""
    rng = random.Random(start)
    for _ in range(10):
        won_or_refused(start_of(start), rng.sample(list(OPTIONS), 2))


def test_a_schedule_of_another_kind_leaves_the_settings_of_the_old_one() -> None:
    run = parse_run(standard("cifar10-resnet20"), ["--recipe.schedule.kind", "cosine"], None)
    assert (run.recipe.schedule.kind, run.recipe.schedule.milestones, run.recipe.schedule.gamma) == ("cosine", (), None)
    with pytest.raises(ValueError, match="gamma has no effect with kind cosine"):
        parse_run(
            standard("cifar10-resnet20"), ["--recipe.schedule.kind", "cosine", "--recipe.schedule.gamma", "0.1"], None
        )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data.memory-limit", "9"], r"data\.memory_limit has an effect with policy pad-crop only, got 9"),
        (
            ["--scaling.gpus-per-worker", "0.5", "--scaling.gpu", "False"],
            r"gpus_per_worker has no effect with scaling\.gpu F",
        ),
    ],
)
def test_a_setting_without_effect_is_refused(words: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_run(standard("imagenet-resnet18@90"), words, None)


MODELS: dict[type[BaseModel], BaseModel | None] = {
    Run: start_of("imagenet-resnet18@fast"),
    Evaluation: Evaluation(),
    PredictionJob: None,
    Preparation: None,
    Export: None,
    Search: None,
    Sweep: None,
    Deploy: Deploy(),
}
NEEDED = {PredictionJob: ["--images", "x", "--out", "y"], Preparation: ["--source.path", "x", "--out", "y"]}
NEEDED |= {Export: ["--out", "y"]}


def numbers(annotation: Any) -> int:
    """Numbers with a fraction that an option takes; 0: none."""
    kinds = (annotation, *typing.get_args(annotation))
    pairs = [kind for kind in kinds if typing.get_origin(kind) is tuple and float in typing.get_args(kind)]
    return 2 if pairs else int(float in kinds)


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)
def test_no_setting_is_infinite_or_no_number(kind: type[BaseModel]) -> None:
    found = 0
    for option, annotation in leaves(kind):
        for text in ("inf", "-inf", "nan") if (count := numbers(annotation)) else ():
            words = [*NEEDED.get(kind, []), f"--{option}", *[text] * count]
            with pytest.raises(ValueError, match=option.rpartition(".")[2].replace("_", "[_-]")) as caught:
                parse_arguments(kind, MODELS[kind], words, None)
            assert "\n" not in str(caught.value)
            found += 1
    assert found or kind in (Evaluation, PredictionJob, Export)


@pytest.mark.parametrize(
    ("raised", "status", "words"),
    [
        (ValueError("seed must be at least 0, got -1"), 2, "seed must be at least 0, got -1"),
        (FileNotFoundError(2, "No such file", "/x"), 2, "No such file: /x"),
        (RuntimeError("the run was lost"), 1, "the run was lost"),
        (Exception("The current node timed out during startup."), 1, "The current node timed out during startup."),
    ],
)
def test_what_is_no_fault_of_the_program_is_a_sentence(raised: Exception, status: int, words: str) -> None:
    assert explained(raised) == (status, words)


@pytest.mark.parametrize("raised", [KeyError("x"), AssertionError("x"), TypeError("x")])
def test_a_fault_of_the_program_keeps_its_traceback(raised: Exception) -> None:
    assert explained(raised) is None


def test_a_name_is_the_runs_and_no_other_word_changes() -> None:
    given = ["--name", "cells", "--name=cells", "--names", "--run-name", "--model-name=x", "name"]
    expected = ["--run-name", "cells", "--run-name=cells", "--names", "--run-name", "--model-name=x", "name"]
    assert with_run_name(given) == expected
