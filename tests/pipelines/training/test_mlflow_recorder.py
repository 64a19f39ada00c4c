"""MLflow beside a training: what cannot be sent is kept; a run that goes on continues its record."""

import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.progress.status import Status
from pipelines.run import standard
from pipelines.tracking import mlflow_runs
from pipelines.training.mlflow_recorder import Recorder, epochs_csv
from resnet.training.checkpoint import EpochRow


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
    api = mlflow_runs.client()
    assert steps(api, again.run_id or "", "top1_error") == [10, 20]
    assert steps(api, again.run_id or "", "running/loss") == [5, 15, 25]
    assert steps(api, again.run_id or "", "system/cpu_utilization_percentage") == [5, 15, 25]
    tags = api.get_run(again.run_id).data.tags
    assert {"git_commit", "torch", "ray", "data"} <= tags.keys()
    assert (tags["hardware"], tags["precision"]) == ("a worker's", "bfloat16")


def test_the_table_of_all_epochs() -> None:
    lines = epochs_csv((row(10), row(20))).splitlines()
    assert lines[0].startswith("epoch,step,lr,train_loss")
    assert [line.split(",")[1] for line in lines[1:]] == ["10", "20"]
