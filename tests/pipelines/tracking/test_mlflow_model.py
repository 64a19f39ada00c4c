"""Registered versions own their files, and MLflow's own tools load them: without the run's folder, without code."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.models import canary_alias
from pipelines.models.by_name import read_checkpoint
from pipelines.run import Run
from pipelines.tracking import mlflow_model, mlflow_runs, model_registry
from pipelines.training.mlflow_recorder import Recorder
from pipelines.training.run_folder import TrainingOutcome
from serve.inference.classifier import Classifier


def digit(seed: int) -> bytes:
    """A small PNG."""
    rng, data = np.random.default_rng(seed), io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, untrained: Any, mlflow_tables: Path) -> Any:
    """A finished run that is recorded and registered, whose folder is gone since: (run id, outcome's gain, copy)."""
    root = tmp_path_factory.mktemp("owned")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # each test has the default store, in this home
        patch.setenv("RESNET_HOME", str(root / "it's a home"))
        (root / "it's a home").mkdir()
        shutil.copy(mlflow_tables, root / "it's a home" / "mlflow.db")
        folder = root / "runs" / "cifar10-resnet8-A.s0"
        shutil.copytree(untrained(), folder)
        checkpoint = next(folder.glob("step-*"))
        run = Run(**json.loads((checkpoint / "run.json").read_text())).model_copy(
            update={"storage": str(root / "runs")}
        )
        told = json.loads((folder / "outcome.json").read_text()) | {"checkpoint": str(checkpoint)}
        told |= {"recipe": run.recipe.name, "seed": 0, "epochs": 1.0, "images_per_second": 100.0}
        (root / "figure.png").write_bytes(b"a figure")
        dataset = mlflow_runs.RunDataset("digits", told["data"], "d" * 64, {"num_rows": 1437})
        recorder = Recorder(run, {"data": told["data"]}, dataset=dataset, began=1_000_000.0)
        recorder.rows(read_checkpoint(str(checkpoint)).progress.rows)
        judged = model_registry.Judged.by_error(88.5, 360, "d" * 64, "single", name="digits")
        gained = recorder.finish(TrainingOutcome(**told), str(root / "figure.png"), judged)
        kept = root / "kept"
        shutil.copytree(checkpoint, kept)
        shutil.rmtree(folder)
        yield recorder.run_id, gained, kept


def test_a_version_outlives_the_runs_folder(finished: Any) -> None:
    _, gained, kept = finished
    assert (gained["model_name"], gained["model_version"]) == ("resnet", "1")
    place, version = model_registry.resolve("resnet@champion")
    assert version == "1"
    assert str(kept.parent / "runs") not in place
    found, before = read_checkpoint(place), read_checkpoint(str(kept))
    assert all((found.model[name] == tensor).all() for name, tensor in before.model.items())
    assert found.optimizer == {}, "momentum is for who trains on"
    assert found.examples is not None, "the endpoint checks it by them"
    assert canary_alias.traffic("resnet@champion")["stable"] == {"version": "1", "checkpoint": place}


def test_mlflow_loads_it_and_gives_the_endpoints_numbers(finished: Any) -> None:
    import mlflow
    import pandas as pd

    mlflow.set_tracking_uri(mlflow_runs.client().tracking_uri)
    model = mlflow.pyfunc.load_model("models:/resnet@champion")
    images = [digit(0), digit(1), digit(2)]
    answers = model.predict(pd.DataFrame({"image": images}))
    classifier = Classifier(str(finished[2]))
    expected = [a.probabilities for a in classifier.run_batch([classifier.crop(data) for data in images])]
    np.testing.assert_array_equal(np.array(answers["probabilities"].tolist(), np.float32), expected)
    assert answers["id"].tolist() == [int(p.argmax()) for p in expected]
    assert answers["wnid"].tolist() == [classifier.classes[int(p.argmax())].wnid for p in expected]


def test_nothing_in_the_artifact_is_code(finished: Any) -> None:
    place = Path(model_registry.resolve("resnet@champion")[0])
    assert {file.suffix for file in place.iterdir()} <= {".safetensors", ".json", ".txt", ".yaml", ""}
    assert "loader_module: resnet_ray.mlflow_loader" in (place / "MLmodel").read_text()
    assert "code:" not in (place / "MLmodel").read_text()


def test_mlflows_pages_show_the_run(finished: Any) -> None:
    """The fields that MLflow's pages Training runs, Datasets, Source, Models and Duration read."""
    run_id, gained, _ = finished
    api = mlflow_runs.client()
    found = api.get_run(run_id)
    tags = found.data.tags
    assert {"mlflow.user", "mlflow.source.name", "mlflow.source.type"} <= tags.keys()
    assert found.info.start_time == 1_000_000_000, "the duration counts from the training's begin"
    assert found.info.status == "FINISHED"
    (dataset,) = found.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("digits", "d" * 36)
    assert json.loads(dataset.dataset.profile)["num_rows"] == 1437
    assert [(tag.key, tag.value) for tag in dataset.tags] == [("mlflow.data.context", "training")]
    (output,) = found.outputs.model_outputs
    model = api.get_logged_model(output.model_id)
    assert (model.name, str(model.status), model.source_run_id) == ("resnet", "READY", run_id)
    assert model.tags["mlflow.source.name"] == tags["mlflow.source.name"]
    assert model.params["network"] == "cifar10-resnet8-A"
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "resnet", "version": 1}]
    assert api.get_model_version("resnet", gained["model_version"]).source == f"models:/{output.model_id}"
    version = api.get_model_version("resnet", "1")
    assert (version.run_id, version.tags["protocol"], version.tags["task"]) == (run_id, "single", "classification")
    experiment = api.get_experiment(found.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_a_version_of_before_that_points_into_a_runs_folder_still_resolves(finished: Any) -> None:
    kept = finished[2]
    api = mlflow_runs.client()
    api.create_registered_model("before")
    version = api.create_model_version("before", str(kept)).version
    assert model_registry.resolve(f"before/{version}")[0] == str(kept)
    version = api.create_model_version("before", kept.as_uri()).version
    assert model_registry.resolve(f"before/{version}")[0] == str(kept)


def test_what_only_mlflow_can_read_is_copied_once(finished: Any, tmp_path: Path, monkeypatch: Any) -> None:
    run_id, api = finished[0], mlflow_runs.client()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", api.tracking_uri)
    monkeypatch.setenv("RESNET_HOME", str(tmp_path))
    api.log_artifacts(run_id, str(finished[2]), "again")
    first = mlflow_model.local_copy(f"runs:/{run_id}/again", "resnet-9")
    assert read_checkpoint(first).progress == read_checkpoint(str(finished[2])).progress
    before = Path(first).stat().st_mtime_ns
    assert mlflow_model.local_copy(f"runs:/{run_id}/again", "resnet-9") == first
    assert Path(first).stat().st_mtime_ns == before
