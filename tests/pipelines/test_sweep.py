"""A sweep on the real engines: what fails does not stop the rest, and a second call runs nothing again."""

from pathlib import Path
from typing import Any

import pytest

from pipelines import cli, sweep, tracking
from pipelines.run import Run


def plan(name: str, storage: Path, *words: str) -> list[sweep.Trial]:
    options, overrides = cli.parse_some(sweep.Sweep, [*words, "--storage", str(storage)])
    return sweep.trials(name, options, overrides, lambda run, rest: cli.parse(Run, run, rest, None))


def test_table6_is_the_residual_networks_up_to_56_layers(tmp_path: Path) -> None:
    planned = plan("table6", tmp_path, "--seeds", "0", "1", "--recipe.epochs", "2")
    assert [t.run.name for t in planned] == [
        f"cifar10-resnet{depth}-A.s{seed}" for depth in (20, 32, 44, 56) for seed in (0, 1)
    ]
    assert all(t.run.recipe.epochs == 2 for t in planned)
    assert planned[1].command.startswith("python jobs/train_imagenet.py cifar10-resnet20-A --recipe.epochs 2")


@pytest.mark.parametrize("name", list(sweep.COMPARISONS))
def test_all_networks_of_a_comparison_share_schedule_batch_and_data(name: str, tmp_path: Path) -> None:
    recipes = [t.run.recipe for t in plan(name, tmp_path, "--data.path", "x", "--seeds", "0")]
    assert len({(r.optim, r.images, r.schedule, r.steps, r.epochs) for r in recipes}) == 1


def test_an_unknown_comparison_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be one of table2, .*, got 'table9'"):
        plan("table9", tmp_path)


def test_a_sweep_trains_compares_and_goes_on(ray_local: Any, tmp_path: Path) -> None:
    words = ["--networks", "cifar10-plain8", "cifar10-resnet8", "--seeds", "0", "--recipe.epochs", "1"]
    planned = plan("figure1", tmp_path, *words)
    done = sweep.run_sweep("figure1", sweep.Sweep(seeds=(0,)), planned)
    assert [t.failure for t in done] == [None, None]
    outcomes = [t.outcome for t in done]
    assert all(outcome is not None and outcome.examples == 360 for outcome in outcomes)
    text = sweep.table("figure1", done)
    assert "cifar10-plain8" in text
    assert "Not the paper's setting (1 epochs on the embedded handwritten digits)" in text

    api = tracking.client()
    children = [api.get_run(outcome.mlflow_run).data.tags["mlflow.parentRunId"] for outcome in outcomes if outcome]
    assert len(set(children)) == 1, "nested below one parent"

    again = sweep.run_sweep("figure1", sweep.Sweep(seeds=(0,)), planned)
    assert [t.outcome for t in again] == outcomes, "finished trials are not run again"
