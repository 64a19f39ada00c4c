"""A training run as a whole, on the real engines: Ray Data, Ray Train with two workers, MLflow."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from pipelines.run import Run, Scaling, standard
from pipelines.tracking import mlflow_runs, model_registry
from pipelines.training.fit import fit
from pipelines.training.run_data import open_source
from pipelines.training.run_folder import TrainingOutcome
from resnet.training.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parents[3]


def small(storage: Path, epochs: float = 1.0, **changes: Any) -> Run:
    """A run of a few seconds: ResNet-8 on the digits, two workers."""
    run = standard("cifar10-resnet8", data_is_given=False)
    recipe = run.recipe.model_copy(update={"epochs": epochs})
    scaling = Scaling(workers=2, threads=1)
    return Run(**(run.model_dump() | {"recipe": recipe, "scaling": scaling, "storage": str(storage)} | changes))


@pytest.fixture(scope="module")
def finished(ray_local: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, TrainingOutcome]:
    """One run to its end, for the tests that only look at it."""
    run = small(tmp_path_factory.mktemp("finished"), epochs=2)
    return run, fit(run, show=False)


def test_the_outcome_is_what_the_checkpoint_and_the_validation_split_say(finished: tuple[Run, TrainingOutcome]) -> None:
    run, outcome = finished
    checkpoint = load_checkpoint(outcome.checkpoint)
    assert outcome.examples == 360, "every validation image counts once"
    assert checkpoint.progress.step == outcome.steps == 2 * (1437 // 64)
    assert checkpoint.recipe.model_copy(update={"precision": "auto"}) == run.recipe
    assert checkpoint.recipe.precision in ("float32", "bfloat16"), "what auto was"
    assert [row.epoch for row in checkpoint.progress.rows] == [0, 1]
    wrong, total = count_errors(run, outcome.checkpoint)
    assert total == 360
    # bfloat16 and another batch size may turn a borderline image
    assert abs(100 * wrong / total - outcome.top1_error) < 0.6


def test_the_finished_network_is_tested_once_more_and_its_answers_kept(finished: tuple[Run, TrainingOutcome]) -> None:
    """Both splits in float32, each image once over two workers; the row says what was trained on what."""
    import hashlib

    from pyarrow import parquet

    from pipelines.reports.collected_rows import row_of_run

    run, outcome = finished
    row = row_of_run(run.folder)
    assert row.final is not None
    wrong, _ = count_errors(run, outcome.checkpoint)
    assert 100 * wrong / 360 == pytest.approx(row.final.top1_error, abs=0.3)
    file = Path(run.folder, "predictions.parquet")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == row.final.predictions_sha256
    answers = parquet.read_table(file).to_pydict()
    assert len(set(answers["key"])) == 360
    right = [top[0] == label for top, label in zip(answers["top"], answers["label"], strict=True)]
    assert row.final.are_right().tolist() == right
    assert row.final.train_examples == 1437
    assert row.final.train_error < row.train_error + 5, "without augmentation it is not worse"
    (conditions,) = row.conditions
    assert (conditions.world_size, conditions.bn_batch, conditions.threads) == (2, 32, 1)
    assert conditions.precision == load_checkpoint(outcome.checkpoint).recipe.precision
    assert [norms.step for norms in row.norms] == [0, 43]
    assert row.norms[0].layers["conv1"][0] > 0
    assert 1.5 < row.norms[0].loss < 4
    assert (row.cpu_seconds or 0) > 0.5 * (row.seconds or 0) > 0


def test_auto_precision_is_what_the_run_began_with_and_another_is_refused(
    finished: tuple[Run, TrainingOutcome],
) -> None:
    run, outcome = finished
    began = load_checkpoint(outcome.checkpoint).recipe.precision
    other = "float32" if began == "bfloat16" else "bfloat16"
    for precision in (began, "auto"):
        recipe = run.recipe.model_copy(update={"precision": precision})
        assert fit(run.model_copy(update={"recipe": recipe}), show=False) == outcome
    recipe = run.recipe.model_copy(update={"precision": other})
    with pytest.raises(ValueError, match=rf"recipe\.precision must be {began} as in the run .*, got {other}"):
        fit(run.model_copy(update={"recipe": recipe}), show=False)


def test_a_name_of_another_task_is_refused_before_anything_starts(ray_local: Any, tmp_path: Path) -> None:
    mlflow_runs.client().create_registered_model("boxes", tags={"task": "detection"})
    with pytest.raises(ValueError, match="must be another for classification, boxes holds versions of detection"):
        fit(small(tmp_path, model_name="boxes"), show=False)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_may_be_evaluated_rarely_and_its_end_always_is(ray_local: Any, tmp_path: Path) -> None:
    run = small(tmp_path, epochs=3, evaluate_every=2)
    outcome = fit(run, show=False)
    errors = [row.top1_error for row in load_checkpoint(outcome.checkpoint).progress.rows]
    assert [error is None for error in errors] == [True, False, False]
    assert outcome.top1_error == errors[-1]
    steps = [metric.step for metric in mlflow_runs.client().get_metric_history(outcome.mlflow_run, "top1_error")]
    assert steps == [44, 66]


def count_errors(run: Run, path: str) -> tuple[int, int]:
    """Top-1 errors on the validation split by a plain loop that shares nothing with the worker's."""
    import io

    import numpy as np
    from PIL import Image
    from pyarrow import parquet

    checkpoint, source = load_checkpoint(path), open_source(run)
    network, normalize = checkpoint.network(), checkpoint.normalize()
    wrong = total = 0
    for shard in source.manifest.of_split("val"):
        table = parquet.read_table(Path(source.uri) / shard.file).to_pydict()
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(b)).convert("RGB")) for b in table["image"]])
        with torch.no_grad():
            best = network(normalize(torch.from_numpy(pixels))).argmax(1)
        wrong += int((best != torch.tensor(table["label"])).sum())
        total += len(best)
    return wrong, total


def test_one_mlflow_run_and_a_registered_champion(finished: tuple[Run, TrainingOutcome]) -> None:
    _, outcome = finished
    api = mlflow_runs.client()
    record = api.get_run(outcome.mlflow_run)
    assert record.info.status == "FINISHED"
    assert record.data.params["recipe.network"] == "cifar10-resnet8-A"
    steps = [metric.step for metric in api.get_metric_history(outcome.mlflow_run, "top1_error")]
    assert steps == [22, 44], "one figure an epoch, none doubled"
    path, version = model_registry.resolve("resnet@champion")
    assert load_checkpoint(path).progress.classes[3].name == "3"
    assert int(version) >= 1
    assert Path(outcome.curves or "").stat().st_size > 5000


def test_the_same_command_again_does_nothing_more(finished: tuple[Run, TrainingOutcome]) -> None:
    run, outcome = finished
    assert fit(run, show=False) == outcome


def test_another_recipe_in_the_same_place_is_refused_by_the_field_that_differs(
    finished: tuple[Run, TrainingOutcome],
) -> None:
    run, _ = finished
    recipe = run.recipe.model_copy(update={"optim": run.recipe.optim.model_copy(update={"lr": 0.2})})
    with pytest.raises(ValueError, match=r"recipe\.optim\.lr must be 0\.1 as in the run that .* holds, got 0\.2"):
        fit(run.model_copy(update={"recipe": recipe}), show=False)


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, "the job ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def workers() -> list[psutil.Process]:
    """Training workers of the Ray that this test process started, and no others."""
    found = psutil.Process().children(recursive=True)
    return [p for p in found if any(word.startswith("ray::RayTrainWorker") for word in p.cmdline()[:1])]


@pytest.mark.slow
def test_killed_and_resumed_equals_never_stopped_bit_for_bit(ray_local: Any, tmp_path: Path) -> None:
    """SIGKILL the job inside an epoch, start it again, SIGKILL a worker: the same weights as without any of it."""
    command = [sys.executable, str(ROOT / "jobs" / "train_imagenet.py"), "cifar10-resnet8", "--recipe.epochs", "4"]
    command += ["--scaling.workers", "2", "--scaling.threads", "1", "--no-promote", "--checkpoints.every-steps", "8"]
    environment = {**os.environ, "RAY_ADDRESS": ray_local.address_info["gcs_address"]}
    interrupted = tmp_path / "interrupted"

    def start(storage: Path) -> subprocess.Popen[str]:
        words = [*command, "--storage", str(storage)]
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def reached(step: int) -> bool:
        return any(int(path.parent.name[5:]) >= step for path in interrupted.glob("*/step-*/progress.json"))

    process = start(interrupted)
    wait_for(lambda: reached(16), process)
    process.kill()
    process.communicate()
    process = start(interrupted)
    wait_for(lambda: reached(32) and workers(), process)
    workers()[0].kill()
    outcomes = []
    for job in (process, start(tmp_path / "whole")):
        out, _ = job.communicate(timeout=300)
        assert job.returncode == 0
        outcomes.append(TrainingOutcome(**json.loads(out.splitlines()[-1])))
    resumed, whole = (load_checkpoint(outcome.checkpoint) for outcome in outcomes)
    assert [row.step for row in resumed.progress.rows] == [22, 44, 66, 88]
    for a, b in zip(resumed.progress.rows, whole.progress.rows, strict=True):
        assert (a.train_loss, a.train_error, a.val_loss) == (b.train_loss, b.train_error, b.val_loss)
    for name, tensor in whole.model.items():
        assert torch.equal(tensor, resumed.model[name]), name
    for name, tensor in whole.optimizer.items():
        assert torch.equal(tensor, resumed.optimizer[name]), name


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run_with_one_sentence(ray_local: Any, tmp_path: Path) -> None:
    run = small(tmp_path, epochs=2)
    optim = run.recipe.optim.model_copy(update={"lr": 1e30})
    schedule = run.recipe.schedule.model_copy(update={"warmup": 0.0})
    recipe = run.recipe.model_copy(update={"optim": optim, "schedule": schedule})
    words = r"the training loss is not finite at step [12] \(lr .*images \[\d+.*last good checkpoint is none"
    with pytest.raises(RuntimeError, match=words):
        fit(run.model_copy(update={"recipe": recipe}), show=False)


@pytest.mark.slow
def test_no_autoscaler_is_asked_on_one_machine(ray_local: Any, tmp_path: Path) -> None:
    import ray

    place = {"name": "AutoscalingCoordinator", "namespace": "AutoscalingCoordinator"}
    with contextlib.suppress(ValueError):  # of a test with Ray Data, which has its own reasons
        ray.kill(ray.get_actor(**place))
    fit(small(tmp_path, epochs=0.2), show=False)
    with pytest.raises(ValueError, match="Failed to look up actor"):
        ray.get_actor(**place)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": {"path": "/nowhere/at/all"}}, "holds no shards"),
        ({"scaling": {"workers": 3}}, "multiple of scaling.workers, got 64 and 3"),
        ({"scaling": {"workers": 0}}, "scaling.workers must be a number of at least 1, or LEAST:MOST .*, got 0"),
        ({"scaling": {"workers": "4:2"}}, "scaling.workers must be a number of at least 1, or LEAST:MOST .*, got 4:2"),
        ({"scaling": {"workers": 4}}, "recipe.bn_batch must divide a worker's part of the batch, 16 images, got 32"),
        ({"data": {"holdout": 1437}}, "data.holdout must leave training images, got 1437 of 1437"),
        ({"resume": "/nowhere/step-1"}, "resume must be never, auto or a checkpoint, got /nowhere/step-1"),
    ],
)
def test_a_wrong_setting_is_one_sentence(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        fit(small(tmp_path, **change), show=False)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir()), "nothing is left behind"
