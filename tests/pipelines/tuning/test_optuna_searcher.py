"""The study's proposals are trained, and what a killed search has left is proposed again."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines import command_line
from pipelines.progress.sweep_table import Board
from pipelines.run import Run
from pipelines.training.run_data import open_source
from pipelines.tuning.optuna_searcher import Suggestions
from pipelines.tuning.recipe_search import base_run, open_study
from pipelines.tuning.search_space import Search, attempts, run_number

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def parse(run: Run, words: Sequence[str]) -> Run:
    return command_line.parse_arguments(Run, run, words, None)


def suggestions(asked: Search, tmp_path: Path, left: int) -> tuple[Suggestions, Any]:
    base = base_run("cifar10-resnet8", ["--storage", str(tmp_path)], parse)
    source = open_source(base)
    study = open_study(asked, base, source)
    return Suggestions(study, asked, base, source, left, Board("search", {}, 2)), study


def test_a_search_that_was_killed_proposes_what_it_left_and_nothing_twice(tmp_path: Path) -> None:
    asked = Search(sampler="grid", points=2, lr=(0.01, 0.1), weight_decay=(1e-4, 1e-3))
    first, study = suggestions(asked, tmp_path, 4)
    runs = [Run.model_validate_json(first.suggest(str(i))["run"]) for i in range(3)]
    assert len({run.name for run in runs}) == 3
    first.on_trial_result("0", {"step": 20, "top1_error": 50.0})
    first.on_trial_complete("0", {"step": 40, "top1_error": 30.0})
    first.stop(runs[1].name, {"step": 20, "top1_error": 80.0})
    first.on_trial_complete("1", {"step": 20, "top1_error": 80.0})
    again, study = suggestions(asked, tmp_path, 2)
    names = [Run.model_validate_json(again.suggest(str(i))["run"]).name for i in range(2)]
    assert runs[2].name in names, "it has a checkpoint to go on from"
    assert not {runs[0].name, runs[1].name} & set(names)
    assert again.suggest("2") == "FINISHED"
    again.on_trial_complete("0", error=True)
    again.on_trial_complete("1", {"step": 40, "top1_error": 31.0})
    trials = attempts(study)
    assert [t.state.name for t in trials] == ["COMPLETE", "PRUNED", "COMPLETE", "FAIL"]
    assert [run_number(t) for t in trials] == [0, 1, 2, 3]
    assert {(t.params["lr"], t.params["weight_decay"]) for t in trials} == {
        (lr, decay) for lr in (0.01, 0.1) for decay in (1e-4, 1e-3)
    }
    with pytest.raises(
        ValueError, match=r"lr must be as in the search that .* holds, \[0.01, 0.1\], got \[0.01, 0.2\]"
    ):
        suggestions(asked.model_copy(update={"lr": (0.01, 0.2)}), tmp_path, 1)


@pytest.mark.slow
def test_a_trial_that_asha_stops_leaves_its_cpus_to_the_next(tmp_path: Path) -> None:
    """On a Ray of its own, which has as many CPUs as the machine: the next trials could not start."""
    # A weight decay of 5 leaves nothing but chance, so that asha has something to stop whichever trial reports first.
    ranges = ["--lr", "0.05", "0.1", "--weight-decay", "0.0001", "5"]
    words = ["cifar10-resnet8", "--sampler", "grid", "--points", "2", *ranges]
    words += ["--scheduler", "asha", "--recipe.epochs", "2", "--grace", "1", "--reduction", "2"]
    command = [sys.executable, str(ROOT / "jobs" / "search_recipe.py"), *words, "--storage", str(tmp_path / "search")]
    environment = os.environ | {"RESNET_HOME": str(tmp_path)}
    for name in [name for name in environment if name.startswith("RAY_")]:
        del environment[name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    states = [tried["state"] for tried in json.loads(done.stdout.splitlines()[-1])["tried"]]
    assert len(states) == 4
    assert set(states) == {"stopped", "finished"}
