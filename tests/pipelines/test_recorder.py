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


def test_the_champion_moves_only_if_better_on_the_same_data(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api = tracking.client()
    run_id = api.create_run(tracking.experiment(api)).info.run_id
    judged = [("/first", 10.0, "d1"), ("/worse", 12.0, "d1"), ("/elsewhere", 1.0, "d2"), ("/better", 9.5, "d1")]
    said = [tracking.register(api, run_id, *model)[1] for model in judged]
    assert said == [
        "champion is now version 1: top-1 error 10.0000 %",
        "champion stays version 1: 10.0000 % against 12.0000 %",
        "champion stays version 1: it was judged on other data",
        "champion is now version 4: top-1 error 9.5000 % (before: 10.0000 %)",
    ]
    assert tracking.resolve("resnet@champion") == ("/better", "4")
