"""A sweep on the real engines: killed, gone on with, with a trial that fails; and each trial alone."""

from pathlib import Path

import pytest

from pipelines import command_line
from pipelines.run import Run
from pipelines.training.run_data import open_source
from pipelines.training.run_folder import RunFolder
from pipelines.tuning import paper_sweep

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
