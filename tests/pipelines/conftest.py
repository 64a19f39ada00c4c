"""Shards and checkpoints that the tests of this folder share."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from resnet.paper.result_rows import CurveRow, DataSet, ResultRow
from resnet.recipes.named import recipe


@pytest.fixture(scope="session")
def mlflow_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables and nothing in them: making them takes seconds, a copy none."""
    from pipelines.tracking import mlflow_runs

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        mlflow_runs.client().search_experiments()
    return path


@pytest.fixture(scope="module")
def store(mlflow_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of a store of the test file's own."""
    return f"sqlite:///{shutil.copy(mlflow_tables, tmp_path_factory.mktemp('store') / 'mlflow.db')}"


@pytest.fixture(scope="session")
def row() -> Any:
    """row(network, seed, **fields) -> a row of results as the report reads it, with figures that only tests use."""

    def make(network: str, seed: int = 0, **changes: Any) -> ResultRow:
        paper = recipe(network)
        fields: dict[str, Any] = {
            "recipe": paper,
            "seed": seed,
            "engine": "ray",
            "commit": "0" * 40,
            "hardware": "a machine of the tests",
            "data": DataSet(name="cifar10", sha256="d", train=50_000, val=10_000),
            "steps": paper.steps,
            "total": paper.steps,
            "protocol": "single",
            "top1_error": 50.0,
            "top5_error": 5.0,
            "train_error": 40.0,
            "curve": (CurveRow(32_000, 0.1, 2.0, 60.0, 55.0), CurveRow(64_000, 0.01, 1.5, 40.0, 50.0)),
        }
        return ResultRow(**(fields | changes))

    return make
