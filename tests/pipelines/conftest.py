"""Shards and checkpoints that the tests of this folder share."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.preparation.prepare import write_shards
from pipelines.preparation.sources import Source
from pipelines.run import Run, standard
from resnet.networks.resnet import build
from resnet.paper.result_rows import CurveRow, DataSet, ResultRow
from resnet.recipes.named import recipe
from resnet.training.checkpoint import Checkpoint, EpochRow, Progress, save_checkpoint


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of the embedded digits: 1,437 to train, 360 held out."""
    out = str(tmp_path_factory.mktemp("digits") / "shards")
    write_shards(Source(kind="digits"), out, workers=0)
    return out


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory, digits: str) -> Any:
    """untrained(seed) -> the folder of a finished run of ResNet-8 on the digits that learnt nothing."""
    import json

    from pipelines.shards.manifest import read_manifest

    root, manifest = tmp_path_factory.mktemp("untrained"), read_manifest(digits)

    def make(seed: int = 0) -> Path:
        run = Run(
            **(standard("cifar10-resnet8", data_is_given=False).model_dump() | {"seed": seed, "data": {"path": digits}})
        )
        folder = root / run.name
        if folder.exists():
            return folder
        total = run.recipe.total_steps(manifest.examples("train"))
        torch.manual_seed(seed)
        net = build(run.recipe.network, 10)
        net(torch.randn(64, 3, 32, 32))  # batch norm statistics that are no longer 0 and 1
        rows = (EpochRow(epoch=0, step=total, lr=0.1, train_loss=2.3, train_error=90, val_loss=2.3, top1_error=88.5,
                         top5_error=45, seconds=1, images_per_second=100),)  # fmt: skip
        pixels = {"mean": torch.full((3, 32, 32), 80.0), "std": torch.full((3, 1, 1), 60.0)}
        progress = Progress(step=total, total_steps=total, examples=360, classes=manifest.classes, rows=rows)
        checkpoint = folder / f"step-{total:08d}"
        save_checkpoint(checkpoint, Checkpoint(net.state_dict(), {}, pixels, run.model_dump(mode="json"), progress))
        sha = manifest.fingerprint_before()
        asked = {"recipe": run.recipe.model_dump(mode="json"), "seed": seed, "data_sha256": sha}
        outcome = {"run": run.name, "top1_error": 88.5, "top5_error": 45.0, "train_error": 90.0, "examples": 360,
                   "steps": total, "seconds": 1.0, "data": digits, "checkpoint": str(checkpoint)}  # fmt: skip
        (folder / "asked.json").write_text(json.dumps(asked))
        (folder / "outcome.json").write_text(json.dumps(outcome))
        return folder

    return make


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
