"""MLflow beside a training: what cannot be sent is kept; a run that goes on continues its record."""

import time
from pathlib import Path
from typing import Any

import pytest

from pipelines import tracking
from pipelines.progress import Status
from pipelines.recorder import Recorder, table
from pipelines.run import standard
from resnet.checkpoint import EpochRow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SQLite store of this file's own; its schema is made once."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def row(step: int) -> EpochRow:
    """Figures of an epoch that ended at this step."""
    figures = dict.fromkeys(EpochRow.model_fields, 1.0) | {"epoch": 0, "step": step, "replaced_images": 0}
    return EpochRow(**figures)  # pyright: ignore[reportArgumentType]


def status(step: int, at: float, rows: tuple[EpochRow, ...]) -> Status:
    """What rank 0 posts."""
    figures: dict[str, Any] = dict.fromkeys(
        ("epoch", "epochs", "loss", "error", "images_per_second", "seconds_left"), 1.0
    )
    dumped = tuple(r.model_dump() for r in rows)
    known = {"hardware": "a worker's", "precision": "bfloat16"}
    return Status(run="r", phase="training", step=step, total=30, time=at, rows=dumped, conditions=known, **figures)


def steps(api: Any, run_id: str, metric: str) -> list[int]:
    """Steps of a metric as the store has them."""
    return [found.step for found in api.get_metric_history(run_id, metric)]


def test_an_outage_loses_nothing_and_a_restart_doubles_nothing(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port where nobody listens stands for a server that is down; a SQLite store for the one that is back."""
    monkeypatch.setattr(Recorder, "RETRY", 0.05)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    run = standard("cifar10-resnet8", data_is_given=False).model_copy(update={"storage": str(tmp_path)})
    first = Recorder(run, {"data": "digits"})
    first.see(status(5, 100.0, ()))
    first.see(status(15, 120.0, (row(10),)))
    deadline = time.monotonic() + 60
    while first.trouble is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert first.trouble is not None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    first.fail("KILLED")

    again = Recorder(run, {"data": "digits"})  # went on from the checkpoint of step 10, and met step 15 once more
    again.see(status(15, 130.0, (row(10),)))
    again.see(status(25, 150.0, (row(10), row(20))))
    again.fail("KILLED")
    assert again.run_id == first.run_id
    api = tracking.client()
    assert steps(api, again.run_id or "", "top1_error") == [10, 20]
    assert steps(api, again.run_id or "", "running/loss") == [5, 15, 25]
    assert steps(api, again.run_id or "", "system/cpu_utilization_percentage") == [5, 15, 25]
    tags = api.get_run(again.run_id).data.tags
    assert {"git_commit", "torch", "ray", "data"} <= tags.keys()
    assert (tags["hardware"], tags["precision"]) == ("a worker's", "bfloat16")


def test_the_table_of_all_epochs() -> None:
    lines = table((row(10), row(20))).splitlines()
    assert lines[0].startswith("epoch,step,lr,train_loss")
    assert [line.split(",")[1] for line in lines[1:]] == ["10", "20"]


def judged(wrong: int, data: str = "d1", examples: int = 300, protocol: str = "1-crop") -> tracking.Judged:
    """Errors of a network."""
    return tracking.Judged(wrong, examples, data, protocol)


def registered(api: Any, name: str, folder: str, by: tracking.Judged) -> tuple[str, str]:
    """A version of a run of its own."""
    run_id = api.create_run(tracking.experiment(api)).info.run_id
    return tracking.register(api, run_id, folder, by, name, lambda: (folder, None))


def test_the_champion_moves_only_if_strictly_better_on_the_same_data(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api = tracking.client()
    assert tracking.model_name(api, None, judged(110)) == "resnet"
    said = [
        registered(api, "resnet", *model)[1]
        for model in (
            ("/first", judged(110)),
            ("/equal", judged(110)),
            ("/worse", judged(111)),
            ("/elsewhere", judged(1, data="d2")),
            ("/otherwise", judged(1, protocol="10-crop")),
            ("/better", judged(109)),
        )
    ]
    assert said == [
        "champion is now version 1: top-1 error 36.6667 %",
        "champion stays version 1: 36.6667 % against 36.6667 %",
        "champion stays version 1: 36.6667 % against 37.0000 %",
        "champion stays version 1: it was judged on other data",
        "champion stays version 1: it was judged by 1-crop, this one by 10-crop",
        "champion is now version 6: top-1 error 36.3333 % (before: 36.6667 %)",
    ]
    assert tracking.resolve("resnet@champion") == ("/better", "6")
    tags = api.get_model_version("resnet", "6").tags
    assert (tags["protocol"], float(tags["top1_error"]), tags["top1_wrong"]) == ("1-crop", 109 / 3, "109")


def test_a_champion_of_an_older_version_of_this_program_is_compared_by_its_count(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It noted 110 of 300 as 36.6667 %, which 36.666... is below."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api = tracking.client()
    api.create_registered_model("older")
    tags = {"top1_error": "36.6667", "data": "d1", "protocol": "single"}
    version = api.create_model_version("older", "/old", tags=tags).version
    api.set_registered_model_alias("older", "champion", version)
    assert registered(api, "older", "/equal", judged(110))[1].startswith("champion stays version 1")
    assert registered(api, "older", "/better", judged(109))[1].startswith("champion is now version 3")


def test_another_data_set_gets_a_model_and_a_champion_of_its_own(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api = tracking.client()
    tracking.model_name(api, None, judged(0))
    birds, more = judged(9, data="d3"), judged(9, data="d4")
    birds, more = (tracking.Judged(**{**vars(by), "name": "birds, 10 held out"}) for by in (birds, more))
    name = tracking.model_name(api, None, birds)
    assert name == "resnet-birds-10-held-out"
    assert tracking.model_name(api, None, birds) == name, "the same data, the same model"
    assert tracking.model_name(api, None, more) == f"{name}-d4", "the same folder's name, other images"
    assert tracking.model_name(api, "mine", birds) == "mine"
    assert registered(api, name, "/birds", birds)[1] == "champion is now version 1: top-1 error 3.0000 %"


def test_what_was_registered_before_an_outage_is_not_registered_twice(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api = tracking.client()
    api.create_registered_model("once")
    run_id = api.create_run(tracking.experiment(api)).info.run_id
    for _ in range(2):
        version, sentence = tracking.register(api, run_id, "/at", judged(30), "once", lambda: ("/at", None))
        assert (version, sentence) == ("1", "champion is now version 1: top-1 error 10.0000 %")


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "REQUEST_LIMIT_EXCEEDED", "INTERNAL_ERROR", "INVALID_STATE"])
def test_no_alias_moves_and_no_canary_ends_on_an_error_of_the_store(
    store: str, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """Every answer of the registry but "there is none" is an error."""
    from mlflow.exceptions import MlflowException, get_error_code
    from mlflow.tracking import MlflowClient

    from pipelines import registry

    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api = tracking.client()
    name = f"guarded-{code.lower()}"
    api.create_registered_model(name)
    for folder in ("/good", "/canary"):
        registered(api, name, folder, judged(10 if folder == "/good" else 20))
    registry.begin_canary(f"{name}@champion", "2=10%")
    run_id = api.create_run(tracking.experiment(api)).info.run_id

    def fails(*_: Any) -> None:
        raise MlflowException("no", error_code=get_error_code(500) if code == "INTERNAL_ERROR" else _code(code))

    with monkeypatch.context() as patch:
        for method in ("get_registered_model", "get_model_version_by_alias", "get_model_version"):
            patch.setattr(MlflowClient, method, fails)
        with pytest.raises(MlflowException):
            tracking.register(api, run_id, "/worse", judged(99), name, lambda: ("/worse", None))
        with pytest.raises(MlflowException):
            registry.end_canary(f"{name}@champion", promote=True)
        with pytest.raises(ValueError, match="cannot be looked up"):
            registry.traffic(f"{name}@champion")
    aliases = api.get_registered_model(name).aliases
    assert {alias: str(version) for alias, version in aliases.items()} == {"champion": "1", "canary": "2"}


def _code(name: str) -> int:
    from mlflow.protos.databricks_pb2 import ErrorCode

    return ErrorCode.Value(name)


def test_an_apostrophe_in_the_storage_is_recorded_and_found_again(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api = tracking.client()
    for folder in ("it's", 'so-"called"', "both'\""):
        run = standard("cifar10-resnet8", data_is_given=False).model_copy(update={"storage": str(tmp_path / folder)})
        first = tracking.start(api, run, {})
        assert tracking.start(api, run, {}) == first
        assert api.get_run(first).data.tags["resnet.key"] == run.folder
        tracking.close(run.folder, "KILLED")
        assert api.get_run(first).info.status == "KILLED"


def test_mlflows_own_variables_say_experiment_run_and_parent(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of a team")
    api = tracking.client()
    mine = standard("cifar10-resnet8", data_is_given=False).model_copy(update={"storage": str(tmp_path)})
    named = api.get_experiment_by_name("of a team")
    assert named is None
    run_id = tracking.start(api, mine, {})
    found = api.get_run(run_id)
    assert found.info.experiment_id == api.get_experiment_by_name("of a team").experiment_id
    assert found.data.params["recipe.network"] == "cifar10-resnet8-A"

    given = api.create_run(found.info.experiment_id, tags={"mlflow.runName": "theirs"}).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    other = mine.model_copy(update={"run_name": "low-lr"})
    assert tracking.start(api, other, {}) == given
    assert api.get_run(given).data.tags["mlflow.runName"] == "theirs"
    assert api.get_run(given).data.params["run_name"] == "low-lr"
    assert tracking.start(api, other, {}) == given, "a restart goes on with it"
    parent = tracking.start_sweep("table6", str(tmp_path))
    assert parent == given, "of a sweep it is the parent"
    trial = tracking.start(api, mine.model_copy(update={"seed": 1}), {}, parent)
    assert api.get_run(trial).data.tags["mlflow.parentRunId"] == given

    monkeypatch.delenv("MLFLOW_RUN_ID")
    monkeypatch.setenv("RESNET_MLFLOW_PARENT", given)
    child = tracking.start(api, mine.model_copy(update={"seed": 2}), {})
    assert api.get_run(child).data.tags["mlflow.parentRunId"] == given


def test_a_sweeps_run_has_what_was_asked_and_what_came_out(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api = tracking.client()
    run_id = tracking.start_sweep("table6", str(tmp_path), {"seeds": [0, 1], "scheduler": "none"}) or ""
    tracking.summarise(f"{tmp_path}/table6", {"top1_error/cifar10-resnet8-A@fast.s0": 9.5}, "network  error")
    tracking.close(f"{tmp_path}/table6", "FINISHED")
    found = api.get_run(run_id)
    assert found.data.params == {"seeds": "[0, 1]", "scheduler": "none"}
    assert found.data.metrics == {"top1_error/cifar10-resnet8-A_fast.s0": 9.5}
    assert [artifact.path for artifact in api.list_artifacts(run_id)] == ["table.txt"]
    assert found.info.status == "FINISHED"
