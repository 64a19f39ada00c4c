"""A cross-validation: which trainings, what their errors come to, and that the same call trains nothing twice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines import command_line
from pipelines.preparation.preparation_options import Preparation
from pipelines.preparation.prepare import prepare
from pipelines.preparation.sources import Source
from pipelines.run import Run
from pipelines.shards.manifest import read_manifest
from pipelines.training.run_folder import TrainingOutcome
from pipelines.tuning.cross_validation import (
    CrossValidation,
    FoldOutcome,
    FoldPlan,
    cross_validate,
    fold_manifests,
    fold_table,
    plan_folds,
    summed,
)
from tests.pipelines.preparation.sources_on_disk import CATS, picture


def parse(run: Run, words: Sequence[str]) -> Run:
    return command_line.parse_arguments(Run, run, words, None)


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds of 20 small pictures."""
    root = tmp_path_factory.mktemp("cross-validation")
    for label, cat in enumerate(CATS):
        (root / "images" / cat).mkdir(parents=True)
        for i in range(10):
            (root / "images" / cat / f"{i}.png").write_bytes(picture(100 * label + i))
    out = root / "folds"
    prepare(Preparation(source=Source(path=str(root / "images")), out=str(out), folds=2, workers=0))
    return out


def words(folds: Path, storage: Path, *more: str) -> list[str]:
    return ["--data.path", str(folds), "--storage", str(storage), "--recipe.images.size", "8",
            "--recipe.optim.batch-size", "4", "--recipe.bn-batch", "4", "--recipe.epochs", "1", *more]  # fmt: skip


def test_each_fold_is_trained_with_each_seed_under_a_name_of_its_own(folds: Path, tmp_path: Path) -> None:
    asked = CrossValidation(seeds=(0, 3))
    plan = plan_folds("cifar10-resnet8", asked, words(folds, tmp_path, "--run-name", "cells"), parse)
    assert (plan.folds, plan.name) == (2, "folds-cells")
    found = [(fold, run.seed, run.name, run.data.path, run.promote) for fold, run in plan.runs]
    assert found == [
        (fold, seed, f"cells.fold-{fold}.s{seed}", f"{folds}/fold-{fold}", False) for seed in (0, 3) for fold in (1, 2)
    ]
    assert len({run.folder for _, run in plan.runs}) == 4
    assert {str(Path(run.folder).parent) for _, run in plan.runs} == {str(tmp_path / "folds-cells")}


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--seed", "1"], "--seed has no effect here: --seeds gives them"),
        (["--data.holdout", "5"], "--data.holdout has no effect here: each fold has its own val"),
        (["--promote"], "--promote has no effect here: no training here registers a model"),
    ],
)
def test_an_option_without_effect_is_refused(folds: Path, tmp_path: Path, more: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        plan_folds("cifar10-resnet8", CrossValidation(), words(folds, tmp_path, *more), parse)


def test_data_that_are_no_folds_are_one_sentence(folds: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.path must be a folder of folds, .* has no fold-1 with shards"):
        fold_manifests(str(folds / "fold-1"))
    (tmp_path / "fold-1").symlink_to(folds / "fold-1")
    with pytest.raises(ValueError, match="fold-2 holds no shards"):
        fold_manifests(str(tmp_path))
    (tmp_path / "fold-2").symlink_to(folds / "fold-1")
    with pytest.raises(ValueError, match=r"must hold folds of one drawing, .*fold-2 is of another than the first"):
        fold_manifests(str(tmp_path))
    assert fold_manifests(str(folds)) == [read_manifest(str(folds / f"fold-{n}")) for n in (1, 2)]


def outcome(error: float, images: int) -> TrainingOutcome:
    return TrainingOutcome(
        run="r", recipe="cifar10-resnet8", seed=0, top1_error=error, top5_error=0, train_error=1, examples=images,
        epochs=1, steps=1, seconds=1, images_per_second=1, data="d", checkpoint="c",
    )  # fmt: skip


def test_folds_weigh_what_they_hold_and_the_spread_is_over_folds() -> None:
    """Errors 10 and 20 % of 30 and 10 images with seed 0, 14 and 24 % with seed 1."""
    plan = FoldPlan("folds-x", "place", "cifar10-resnet8", "data", 2, (0, 1), ())
    trained = tuple(
        FoldOutcome(fold=fold, seed=seed, outcome=outcome(10 * fold + 4 * seed, images))
        for seed in (0, 1)
        for fold, images in ((1, 30), (2, 10))
    )
    found = summed(plan, trained)
    assert found.by_seed == pytest.approx((12.5, 16.5))
    assert found.top1_error == pytest.approx(14.5)
    assert found.by_fold == pytest.approx((12, 22))
    lines = fold_table(found).splitlines()
    assert "2 folds: 17.00 ± 7.07 %, mean ± standard deviation over folds" in lines
    assert "2 seeds: 14.50 ± 2.83 %, mean ± standard deviation over seeds" in lines
    assert "all 40 images, each by networks that never trained on it: 14.50 %" in lines
    assert lines[3].split() == ["1", "0", "30", "10.00", "1.00"]


@pytest.mark.slow
def test_the_same_call_again_trains_nothing_twice(ray_local: Any, folds: Path, tmp_path: Path) -> None:
    from pipelines.tracking import mlflow_runs

    given = words(folds, tmp_path, "--scaling.workers", "1")
    plan = plan_folds("cifar10-resnet8", CrossValidation(), given, parse)
    found = cross_validate(plan)
    assert sum(t.outcome.examples for t in found.trained) == 20, "each image is tested once"
    assert cross_validate(plan) == found
    api = mlflow_runs.client()
    (parent,) = api.search_runs(
        [mlflow_runs.experiment(api)], f"tags.`resnet.key` = '{tmp_path}/folds-cifar10-resnet8-A'"
    )
    assert parent.data.metrics["top1_error"] == pytest.approx(found.top1_error)
    children = api.search_runs([mlflow_runs.experiment(api)], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert sorted(run.info.run_name for run in children) == [run.name for _, run in plan.runs]
