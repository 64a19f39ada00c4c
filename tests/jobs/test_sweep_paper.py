"""The job of the paper's comparisons: its mistakes, and a sweep that is killed and goes on."""

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
from pipelines.tracking import mlflow_runs
from pipelines.tuning import paper_sweep
from resnet.training.checkpoint import load_checkpoint
from tests.pipelines.training.test_fit import wait_for
from tests.pipelines.tuning.test_paper_sweep import plan

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.mark.slow
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
