"""The search of lr and weight decay: what is proposed, what is remembered, what a member of a population takes over."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs import search_recipe
from pipelines import command_line
from pipelines.progress.sweep_table import Board
from pipelines.run import Run
from pipelines.training.run_data import open_source
from pipelines.tuning.optuna_searcher import Suggestions
from pipelines.tuning.population import LIVES, member_run
from pipelines.tuning.recipe_search import _found as found  # pyright: ignore[reportPrivateUsage]
from pipelines.tuning.recipe_search import base_run, open_study, search_table
from pipelines.tuning.search_space import Search, Tried, attempts, run_number, setting
from pipelines.tuning.trial_slots import judges
from resnet.training.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def parse(run: Run, words: Sequence[str]) -> Run:
    return command_line.parse_arguments(Run, run, words, None)


def test_settings_are_judged_by_held_out_training_images_unless_said_otherwise(tmp_path: Path) -> None:
    base = base_run("cifar10-resnet8", ["--storage", str(tmp_path)], parse)
    source = open_source(base)
    assert (source.train.examples, source.val.examples) == (1437 - 143, 143)
    assert judges(source).startswith("143 training images that are held out")
    source = open_source(base_run("cifar10-resnet8", ["--storage", str(tmp_path), "--data.holdout", "0"], parse))
    assert (source.train.examples, source.val.examples) == (1437, 360)
    assert "by which results are reported as well" in judges(source)


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


def test_a_trial_that_asha_stops_leaves_its_cpus_to_the_next(tmp_path: Path) -> None:
    """On a Ray of its own, which has as many CPUs as the machine: the next trials could not start."""
    # A weight decay of 5 leaves nothing but chance, so that asha has something to stop whichever trial reports first.
    ranges = ["--lr", "0.05", "0.1", "--weight-decay", "0.0001", "5"]
    words = ["cifar10-resnet8", "--sampler", "grid", "--points", "2", *ranges]
    words += ["--recipe.epochs", "2", "--reduction", "2"]
    command = [sys.executable, str(ROOT / "jobs" / "search_recipe.py"), *words, "--storage", str(tmp_path / "search")]
    environment = os.environ | {"RESNET_HOME": str(tmp_path)}
    for name in [name for name in environment if name.startswith("RAY_")]:
        del environment[name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    states = [tried["state"] for tried in json.loads(done.stdout.splitlines()[-1])["tried"]]
    assert len(states) == 4
    assert set(states) == {"stopped", "finished"}


def test_the_table_has_the_best_first_and_the_command_on_all_images(tmp_path: Path) -> None:
    words = ["--storage", str(tmp_path), "--data.holdout", "143", "--recipe.epochs", "4"]
    base = base_run("cifar10-resnet8", words, parse)
    tried = (
        Tried(number=0, lr=0.5, weight_decay=1e-4, state="stopped", epochs=1, error=70),
        Tried(number=1, lr=0.1, weight_decay=2e-4, state="finished", epochs=4, error=20),
    )
    result = found(Search(), base, words, open_source(base), tried, 1.0)
    assert result.command is not None
    assert "holdout" not in result.command
    assert result.command.endswith("--recipe.optim.lr 0.1 --recipe.optim.weight-decay 0.0002")
    lines = search_table(result).splitlines()
    assert lines[3].split()[:5] == ["1", "0.1", "0.0002", "4", "20.00"]
    assert "5 epochs trained, 38 % fewer than the 8 of all settings to the end" in lines


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["cifar10-resnet9"], "cifar10-resnet9"),
        (["cifar10-resnet8", "--lr", "1", "0.1"], "lr must be two positive numbers, the smaller first, got 1 0.1"),
        (["cifar10-resnet8", "--scheduler", "pbt", "--sampler", "grid"], "sampler has no effect with scheduler pbt"),
        (["cifar10-resnet8", "--data.holdout", "9999"], "holdout must leave training images"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        search_recipe.job(words)
    assert "\n" not in str(caught.value)


def test_a_life_begins_with_the_weights_and_the_history_that_it_takes_over(untrained: Any, tmp_path: Path) -> None:
    base = base_run("cifar10-resnet8", ["--storage", str(tmp_path / "search")], parse)
    first = member_run(base, 0, {"lr": 0.1, "weight_decay": 1e-4}, None)
    folder = Path(first.storage_path) / first.name
    assert json.loads((folder / LIVES).read_text()) == [[0, 0.1, 1e-4]]
    assert not list(folder.glob("step-*"))
    donor = tmp_path / "donor"
    shutil.copytree(next(untrained().glob("step-*")), donor)
    shutil.copy(folder / LIVES, donor)
    other = member_run(base, 1, {"lr": 0.12, "weight_decay": 8e-5}, donor)
    place = Path(other.storage_path) / other.name
    assert json.loads((place / LIVES).read_text()) == [[0, 0.1, 1e-4], [264, 0.12, 8e-5]]
    taken = load_checkpoint(place / "step-00000264")
    assert taken.progress.step == 264
    assert other.recipe.optim.lr == 0.12
    assert other.name == setting(base, 1, 0.12, 8e-5).name
    assert member_run(base, 1, {"lr": 0.12, "weight_decay": 8e-5}, donor) == other, "a restart is no new life"


def test_held_out_images_are_val_and_no_image_is_in_both(tmp_path: Path) -> None:
    source = open_source(base_run("cifar10-resnet8", ["--storage", str(tmp_path)], parse))
    assert (source.train.name, source.val.name) == ("train", "val")
    keys = [
        key
        for split in (source.train, source.val)
        for group in range(len(split.rows))
        for key in split.read(group, ("key",))["key"]
    ]
    assert len(keys) == len(set(keys)) == 1437
