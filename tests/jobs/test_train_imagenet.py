"""The job as users start it: by `ray job submit`, and with mistakes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs import train_imagenet
from pipelines.tracking import mlflow_runs

ROOT = Path(__file__).resolve().parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


def outcome_of(ray_local: Any, *command: str) -> dict[str, Any]:
    """What a job printed that COMMAND submits to the shared cluster."""
    environment = {**os.environ, "RAY_ADDRESS": f"http://{ray_local.address_info['webui_url']}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    (outcome,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(outcome)


@pytest.mark.slow
def test_the_demonstration_reaches_its_accuracy_by_the_literal_command(ray_local: Any) -> None:
    """`ray job submit jobs/train_imagenet.py`: Ray runs in the root of the project, which is installed editable."""
    outcome = outcome_of(ray_local, *RAY, "job", "submit", "jobs/train_imagenet.py")
    assert outcome["run"] == "cifar10-resnet20-A.s0"
    assert outcome["examples"] == 360
    assert outcome["top1_error"] <= 1.5
    assert Path(outcome["checkpoint"], "model.safetensors").exists()


@pytest.mark.slow
def test_a_working_directory_travels_with_the_job_and_its_commit_too(ray_local: Any, tmp_path: Path) -> None:
    """As `make train` submits it, with --working-dir: Ray leaves .git out of what it uploads."""
    words = ["jobs/train_imagenet.py", "cifar10-resnet8", "--recipe.epochs", "1", "--storage", str(tmp_path)]
    outcome = outcome_of(ray_local, sys.executable, "-m", "pipelines.cluster", "--", "python", *words)
    assert outcome["recipe"] == "cifar10-resnet8-A"
    assert outcome["steps"] == 22
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    commit = head.stdout.strip() or "unknown"  # a copy of the project without its history
    assert outcome["commit"] == commit
    assert mlflow_runs.client().get_run(outcome["mlflow_run"]).data.tags["git_commit"] == commit


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["cifar10-resnet21"], r"cifar10-resnet21"),
        (["cifar10-resnet20@foo"], r"must be one of .*, got 'foo'"),
        (["imagenet-resnet18"], r"data\.path must be given for imagenet-resnet18-A"),
        (["--recipe.optim.lr", "-1"], r"lr must be greater than 0, got -1"),
        (["--recipe.optim.lr", "fast"], r"--recipe\.optim\.lr"),
        (["--recipe.optm.lr", "1"], r"Unrecognized options: --recipe\.optm\.lr.*--recipe\.optim\.lr"),
        (["--recipe.images.policy", "scale-jitter"], r"policy scale-jitter needs shorter_side"),
        (["--scaling.workers", "0"], r"workers must be a number of at least 1, or LEAST:MOST such as 1:4, got 0"),
        (["--data.path", "/nowhere"], r"/nowhere holds no shards"),
    ],
)
def test_a_mistake_is_one_sentence_before_any_cluster_is_taken(words: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        train_imagenet.job(words)
    assert "\n" not in str(caught.value)


def test_a_mistake_ends_with_status_2_and_without_traceback() -> None:
    command = [sys.executable, ROOT / "jobs" / "train_imagenet.py", "cifar10-resnet21"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("train_imagenet.py: ")


def test_help_teaches() -> None:
    command = [sys.executable, ROOT / "jobs" / "train_imagenet.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for words in ("ray job submit", "--recipe.images.size", "--data.path", "--scaling.workers", "--storage"):
        assert words in done.stdout
