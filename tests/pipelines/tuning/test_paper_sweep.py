"""A sweep on the real engines: killed, gone on with, with a trial that fails; and each trial alone."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs import sweep_paper, train_imagenet
from pipelines import command_line
from pipelines.run import Run
from pipelines.tracking import mlflow_runs
from pipelines.training.run_data import open_source
from pipelines.training.run_folder import RunFolder
from pipelines.tuning import paper_sweep
from resnet.training.checkpoint import load_checkpoint
from tests.pipelines.training.test_fit import wait_for

ROOT = Path(__file__).resolve().parents[3]


def plan(name: str, storage: Path, *words: str) -> list[paper_sweep.SweepRun]:
    options, overrides = command_line.parse_some(paper_sweep.Sweep, [*words, "--storage", str(storage)])
    return paper_sweep.trials(
        name, options, overrides, lambda run, rest: command_line.parse_arguments(Run, run, rest, None)
    )


def test_table6_is_the_residual_networks_up_to_56_layers(tmp_path: Path) -> None:
    planned = plan("table6", tmp_path, "--seeds", "0", "1", "--recipe.epochs", "2")
    assert [t.run.name for t in planned] == [
        f"cifar10-resnet{depth}-A.s{seed}" for depth in (20, 32, 44, 56) for seed in (0, 1)
    ]
    assert all(t.run.recipe.epochs == 2 for t in planned)
    assert planned[1].command.startswith("python jobs/train_imagenet.py cifar10-resnet20-A --recipe.epochs 2")


@pytest.mark.parametrize("name", list(paper_sweep.COMPARISONS))
def test_all_networks_of_a_comparison_share_schedule_batch_and_data(name: str, tmp_path: Path) -> None:
    trials = plan(name, tmp_path, "--data.path", "x", "--seeds", "0")
    recipes = [t.run.recipe for t in trials]
    assert len({(r.optim, r.images, r.schedule, r.steps, r.epochs) for r in recipes}) == 1
    # The order of examples is a function of the manifest, window, batch and seed: nothing else of a run enters it.
    assert len({(t.run.data, t.run.seed) for t in trials}) == 1


def test_relative_folders_mean_the_same_in_a_trials_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for trial in plan("table6", Path("runs"), "--seeds", "0", "--data.path", "shards"):
        assert (trial.run.storage, trial.run.data.path) == (str(tmp_path / "runs"), str(tmp_path / "shards"))


def test_the_longest_trials_start_first(tmp_path: Path) -> None:
    ordered = paper_sweep.longest_first(plan("degradation", tmp_path, "--seeds", "0", "1"), 50_000)
    assert [t.run.name for t in ordered] == [
        f"cifar10-{name}.s{seed}" for name in ("plain56", "resnet56-A", "plain20", "resnet20-A") for seed in (0, 1)
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["table9"], r"must be one of table2, .*, got 'table9'"),
        (["table6", "--scheduler", "pbt"], r"scheduler must be none or asha here, got pbt: .*search_recipe\.py"),
        (["table6", "--scheduler", "fifo"], r"scheduler"),
        (["table6", "--seeds", "-1"], r"seed must be greater than or equal to 0, got -1"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        sweep_paper.job(words)
    assert "\n" not in str(caught.value)


def test_a_killed_sweep_goes_on_and_gives_the_weights_of_each_trial_alone(ray_local: Any, tmp_path: Path) -> None:
    """SIGKILL inside an epoch, then the same call; one trial fails; one is run alone by its command, without a kill."""
    words = ["--networks", "cifar10-resnet8", "cifar10-plain8", "--seeds", "0", "--recipe.epochs", "2"]
    words += ["--checkpoints.every-steps", "8", "--concurrent", "1"]
    killed = tmp_path / "swept" / "cifar10-resnet8-A.s0"
    command = [sys.executable, str(ROOT / "jobs" / "sweep_paper.py"), "figure1", *words]
    environment = {**os.environ, "RAY_ADDRESS": ray_local.address_info["gcs_address"]}
    process = subprocess.Popen(
        [*command, "--storage", str(tmp_path / "swept")], env=environment, stderr=subprocess.DEVNULL, text=True
    )
    wait_for(lambda: any(killed.glob("step-*/progress.json")), process)
    process.kill()
    process.wait()
    assert not (killed / "outcome.json").exists()

    planned = plan("figure1", tmp_path / "swept", *words)
    # In the place of the second one that cannot be trained.
    lost = planned[1].run.recipe.model_copy(
        update={"optim": planned[1].run.recipe.optim.model_copy(update={"lr": 1e30}), "epochs": 1.0}
    )
    planned[1] = planned[1].model_copy(update={"run": planned[1].run.model_copy(update={"recipe": lost})})
    done = paper_sweep.run_sweep("figure1", paper_sweep.Sweep(seeds=(0,), concurrent=1), planned)
    assert done[0].failure is None
    assert done[0].outcome is not None
    assert done[0].outcome.steps == 44
    assert "the training loss is not finite at step" in str(done[1].failure)
    text = paper_sweep.comparison_table("figure1", done)
    assert re.search(r"cifar10-resnet8-A +1 +\d", text)
    assert "failed: cifar10-plain8.s0: the training loss is not finite" in text
    assert "Not the paper's setting (2 epochs on the embedded handwritten digits)" in text

    api = mlflow_runs.client()
    parent = api.get_run(api.get_run(done[0].outcome.mlflow_run).data.tags["mlflow.parentRunId"])
    assert (parent.info.run_name, parent.info.status) == ("figure1", "FAILED")
    again = paper_sweep.run_sweep("figure1", paper_sweep.Sweep(seeds=(0,)), planned[:1])
    assert [t.outcome for t in again] == [done[0].outcome], "finished trials are not run again"

    alone = shlex.split(done[0].command)
    assert alone[:2] == ["python", "jobs/train_imagenet.py"]
    outcome = train_imagenet.job([*alone[2:], "--storage", str(tmp_path / "alone"), "--no-promote"])
    swept, single = load_checkpoint(done[0].outcome.checkpoint), load_checkpoint(outcome.checkpoint)
    assert all(torch.equal(tensor, swept.model[name]) for name, tensor in single.model.items())


def test_what_asha_has_stopped_stays_stopped_for_asha(tmp_path: Path) -> None:
    planned = plan("degradation", tmp_path, "--seeds", "0")
    source = open_source(planned[0].run)
    for trial in planned:
        stop = paper_sweep.Stop(scheduler="asha", step=22, epoch=1, error=80)
        RunFolder(trial.run, source.sha256).write(paper_sweep.STOPPED, stop.model_dump(mode="json"))
    done = paper_sweep.run_sweep("degradation", paper_sweep.Sweep(scheduler="asha"), planned)
    assert all(t.stop and t.failure is None for t in done)
    assert "stopped by asha: cifar10-plain20.s0 after epoch 1 with 80.00 %" in paper_sweep.comparison_table(
        "degradation", done
    )
