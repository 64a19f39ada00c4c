"""One MLflow run a training or sweep, found again by its folder, under MLflow's own variables."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.run import standard
from pipelines.tracking import mlflow_runs
from pipelines.tracking.mlflow_runs import flat
from pipelines.tracking.mlflow_store import CREDENTIALS
from resnet.training.checkpoint import EpochRow


def test_an_apostrophe_in_the_storage_is_recorded_and_found_again(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api = mlflow_runs.client()
    for folder in ("it's", 'so-"called"', "both'\""):
        run = standard("cifar10-resnet8", data_is_given=False).model_copy(update={"storage": str(tmp_path / folder)})
        first = mlflow_runs.start(api, run, {})
        assert mlflow_runs.start(api, run, {}) == first
        assert api.get_run(first).data.tags["resnet.key"] == run.folder
        mlflow_runs.close(run.folder, "KILLED")
        assert api.get_run(first).info.status == "KILLED"


def test_mlflows_own_variables_say_experiment_run_and_parent(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of a team")
    api = mlflow_runs.client()
    mine = standard("cifar10-resnet8", data_is_given=False).model_copy(update={"storage": str(tmp_path)})
    named = api.get_experiment_by_name("of a team")
    assert named is None
    run_id = mlflow_runs.start(api, mine, {})
    found = api.get_run(run_id)
    assert found.info.experiment_id == api.get_experiment_by_name("of a team").experiment_id
    assert found.data.params["recipe.network"] == "cifar10-resnet8-A"

    given = api.create_run(found.info.experiment_id, tags={"mlflow.runName": "theirs"}).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    other = mine.model_copy(update={"run_name": "low-lr"})
    assert mlflow_runs.start(api, other, {}) == given
    assert api.get_run(given).data.tags["mlflow.runName"] == "theirs"
    assert api.get_run(given).data.params["run_name"] == "low-lr"
    assert mlflow_runs.start(api, other, {}) == given, "a restart goes on with it"
    parent = mlflow_runs.start_sweep("table6", str(tmp_path))
    assert parent == given, "of a sweep it is the parent"
    trial = mlflow_runs.start(api, mine.model_copy(update={"seed": 1}), {}, parent)
    assert api.get_run(trial).data.tags["mlflow.parentRunId"] == given

    monkeypatch.delenv("MLFLOW_RUN_ID")
    monkeypatch.setenv("RESNET_MLFLOW_PARENT", given)
    child = mlflow_runs.start(api, mine.model_copy(update={"seed": 2}), {})
    assert api.get_run(child).data.tags["mlflow.parentRunId"] == given


def test_a_runs_params_say_which_weights_it_began_with(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api = mlflow_runs.client()
    plain = standard("cifar10-resnet8", data_is_given=False).model_copy(update={"storage": str(tmp_path)})
    begun = {"init": "/weights/resnet18.pth", "init_sha256": "ab" * 32, "run_name": "tuned"}
    params = api.get_run(mlflow_runs.start(api, plain.model_copy(update=begun), {})).data.params
    assert (params["init"], params["init_sha256"]) == ("/weights/resnet18.pth", "ab" * 32)
    assert api.get_run(mlflow_runs.start(api, plain, {})).data.params["init"] == "None"


def test_a_sweeps_run_has_what_was_asked_and_what_came_out(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api = mlflow_runs.client()
    run_id = mlflow_runs.start_sweep("table6", str(tmp_path), {"seeds": [0, 1], "scheduler": "none"}) or ""
    mlflow_runs.summarise(f"{tmp_path}/table6", {"top1_error/cifar10-resnet8-A@fast.s0": 9.5}, "network  error")
    mlflow_runs.close(f"{tmp_path}/table6", "FINISHED")
    found = api.get_run(run_id)
    assert found.data.params == {"seeds": "[0, 1]", "scheduler": "none"}
    assert found.data.metrics == {"top1_error/cifar10-resnet8-A_fast.s0": 9.5}
    assert [artifact.path for artifact in api.list_artifacts(run_id)] == ["table.txt"]
    assert found.info.status == "FINISHED"


def test_a_deleted_experiment_is_told_before_the_training_with_the_way_back(
    mlflow_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert mlflow_runs.check_tracking() is None, "no file yet"
    shutil.copy(mlflow_tables, tmp_path / "mlflow.db")
    api = mlflow_runs.client()
    made = mlflow_runs.experiment(api)
    assert mlflow_runs.check_tracking() is None
    assert api.get_experiment(made).tags["mlflow.experimentKind"] == "custom_model_development"
    api.delete_experiment(made)
    with pytest.raises(ValueError, match=f"experiments restore --experiment-id {made}`, or .*MLFLOW_EXPERIMENT_NAME"):
        mlflow_runs.check_tracking()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    assert mlflow_runs.check_tracking() is None
    assert api.get_experiment(mlflow_runs.experiment(api)).name == "another"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", made)
    with pytest.raises(ValueError, match="must not be deleted, got resnet"):
        mlflow_runs.check_tracking()
    api.restore_experiment(made)
    assert mlflow_runs.check_tracking() is None
    assert mlflow_runs.experiment(api) == made


SECRET = "hunter2-of-this-test-alone"


def test_params_and_tags_have_no_credentials(
    mlflow_tables: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in CREDENTIALS:
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shutil.copy(mlflow_tables, tmp_path / 'mlflow.db')}")
    run = standard("cifar10-resnet8", data_is_given=False).model_copy(update={"storage": str(tmp_path)})
    api: Any = mlflow_runs.client()
    mlflow_runs.start(api, run, {"data": "digits"})
    mlflow_runs.start_sweep("table6", str(tmp_path), {"seeds": [0, 1]})
    assert SECRET.encode() not in b"".join(file.read_bytes() for file in tmp_path.glob("mlflow.db*"))


def test_nested_json_becomes_dotted_names_and_text() -> None:
    nested = {"seed": 0, "recipe": {"optim": {"lr": 0.1}, "milestones": [0.5, 0.75]}, "name": None, "empty": {}}
    assert dict(flat(nested)) == {
        "seed": "0",
        "recipe.optim.lr": "0.1",
        "recipe.milestones": "[0.5, 0.75]",
        "name": "None",
    }


def test_epochs_are_sent_in_batches_and_none_twice(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow takes a thousand metrics at once; 130 epochs have more."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api = mlflow_runs.client()
    run_id = api.create_run(mlflow_runs.experiment(api)).info.run_id
    figures = dict.fromkeys(EpochRow.model_fields, 1.0) | {"epoch": 0, "replaced_images": 0}
    rows = [EpochRow(**figures | {"step": step}) for step in range(1, 131)]  # pyright: ignore[reportArgumentType]
    for sent in (rows[:40], rows, rows):
        mlflow_runs.log_rows(api, run_id, sent)
    for metric in ("top1_error", "lr"):
        assert [m.step for m in api.get_metric_history(run_id, metric)] == list(range(1, 131))
    assert len(api.get_run(run_id).data.metrics) * len(rows) > 1000
