"""Short trainings choose which settings are trained in full, and a killed search knows what is left."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines import command_line
from pipelines.progress.sweep_table import Board
from pipelines.run import Run
from pipelines.training.run_data import RunData, open_source
from pipelines.training.run_folder import TrainingOutcome
from pipelines.tuning import short_first
from pipelines.tuning.optuna_searcher import Suggestions
from pipelines.tuning.recipe_search import base_run, open_study, search
from pipelines.tuning.search_space import Search
from resnet.training.lr_schedule import lr_at

GRID = Search(sampler="grid", points=2, lr=(0.01, 0.1), weight_decay=(1e-4, 1e-3))


def parse(run: Run, words: Sequence[str]) -> Run:
    return command_line.parse_arguments(Run, run, words, None)


def opened(tmp_path: Path, asked: Search = GRID, *words: str) -> tuple[Run, RunData, Any]:
    base = base_run("cifar10-resnet8", ["--storage", str(tmp_path), *words], parse)
    source = open_source(base)
    return base, source, open_study(asked, base, source)


@pytest.mark.parametrize("words", [["--recipe.epochs", "8"], ["--recipe.steps", "160"]])
def test_a_short_training_has_the_whole_schedule_in_it(tmp_path: Path, words: list[str]) -> None:
    """A quarter of the steps; at each part of the training lr is that of the full one."""
    base, source, _ = opened(tmp_path, GRID, *words)
    short = short_first.shortened(base, 0.25)
    full_steps, steps = (run.recipe.total_steps(source.train.examples) for run in (base, short))
    assert (full_steps, steps) == (160, 40)
    for step in range(4, 40):
        a, b = (lr_at(s, total, base.recipe.optim, base.recipe.schedule) for s, total in ((step, 40), (4 * step, 160)))
        assert a == pytest.approx(b, rel=1e-9)


def run_short(study: Any, base: Run, source: RunData, errors: list[float | None]) -> None:
    """The short trainings of a grid, as Tune reports them; None: it failed."""
    searcher = Suggestions(study, GRID, base, source, len(errors), Board("search", {}, 2))
    for i, error in enumerate(errors):
        searcher.suggest(str(i))
        searcher.on_trial_complete(str(i), None if error is None else {"step": 1, "top1_error": error}, error is None)


def test_the_best_short_trainings_are_trained_in_full(tmp_path: Path) -> None:
    base, source, study = opened(tmp_path)
    run_short(study, base, source, [40.0, 30.0, None])
    assert short_first.best_settings(GRID, study) == [], "one has not had its short training"
    assert not short_first.is_done(GRID, base, source, study)
    run_short(study, base, source, [20.0])
    (best,) = short_first.best_settings(GRID, study)
    assert (best.number, GRID.finalist_count) == (3, 1)
    two = GRID.model_copy(update={"finalists": 2})
    assert [t.number for t in short_first.best_settings(two, study)] == [3, 1]
    run = short_first.full_run(base, best)
    assert run.name == "cifar10-resnet8-A@t003-full.s0"
    same = {"variant": base.recipe.variant, "optim": base.recipe.optim}
    assert run.recipe.model_copy(update=same) == base.recipe, "its full length"
    assert run.recipe.optim.lr == best.params["lr"]
    states = [t.state for t in short_first.tried_of(GRID, base, source, study)]
    assert states == ["stopped", "stopped", "failed", "unfinished"]
    write_outcome(source, run, 12.5)
    assert short_first.is_done(GRID, base, source, study)
    tried = short_first.tried_of(GRID, base, source, study)
    assert [(t.state, t.epochs, t.error) for t in tried] == [
        ("stopped", 3, 40), ("stopped", 3, 30), ("failed", 0, None), ("finished", 15, 12.5)
    ]  # fmt: skip


def write_outcome(source: RunData, run: Run, error: float) -> None:
    place = source.place(run)
    Path(run.folder).mkdir(parents=True)
    place.begin()
    outcome = TrainingOutcome(
        run=run.name, recipe=run.recipe.name, seed=0, top1_error=error, top5_error=0, train_error=1, examples=143,
        epochs=12, steps=1, seconds=1, images_per_second=1, data="d", checkpoint="c",
    )  # fmt: skip
    place.write("outcome.json", outcome.model_dump(mode="json"))


def test_a_search_whose_trainings_all_failed_is_over(tmp_path: Path) -> None:
    base, source, study = opened(tmp_path)
    run_short(study, base, source, [None, None, None, None])
    assert short_first.best_settings(GRID, study) == []
    assert short_first.is_done(GRID, base, source, study)


def test_a_plateau_does_not_shorten_and_is_told(tmp_path: Path) -> None:
    base, _, _ = opened(tmp_path)
    assert short_first.note_on(base) is None
    plateau = base.recipe.schedule.model_copy(update={"kind": "plateau"})
    told = short_first.note_on(base.model_copy(update={"recipe": base.recipe.model_copy(update={"schedule": plateau})}))
    assert told is not None
    assert "plateau" in told


@pytest.mark.slow
def test_a_search_ends_with_a_full_training_and_costs_half(ray_local: Any, tmp_path: Path) -> None:
    """A weight decay of 5 leaves nothing but chance: the other two settings cannot both lose to it."""
    asked = Search(sampler="grid", points=2, lr=(0.05, 0.1), weight_decay=(1e-4, 5.0))
    words = ["--storage", str(tmp_path), "--recipe.epochs", "4", "--scaling.threads", "1"]
    found = search("cifar10-resnet8", asked, words, parse)
    assert sorted(t.state for t in found.tried) == ["finished", "stopped", "stopped", "stopped"]
    assert found.best is not None
    assert found.best.weight_decay == pytest.approx(1e-4)
    assert (found.epochs_trained, found.epochs_of_all) == (8, 16)
    again = search("cifar10-resnet8", asked, words, parse)
    assert again.tried == found.tried
