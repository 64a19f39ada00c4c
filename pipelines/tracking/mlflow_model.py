"""The files that a registered version owns: a checkpoint without momentum, and MLmodel, by which MLflow loads it.

`mlflow.pyfunc.load_model("models:/resnet@champion")` and `mlflow models serve` read them by
resnet_ray/mlflow_loader.py, a part of this program and not of the artifact: nothing in the files is executed.

The files go to MLflow's artifacts, as a logged model of the run; where the run itself is in a bucket, into
STORAGE/registry/NAME/RUN there, which every node can read.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import uuid
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.run import home
from pipelines.storage import Folder
from pipelines.tracking.mlflow_store import store_uri

if TYPE_CHECKING:
    from resnet.dense.dense_checkpoint import DenseCheckpoint
    from resnet.training.checkpoint import Checkpoint

LOADER = "resnet_ray.mlflow_loader"
NEEDS = ("torch", "torchvision", "numpy", "pillow", "safetensors", "simplejpeg", "pydantic", "prometheus-client")


def publish(
    api: Any, run_id: str, checkpoint: Checkpoint | DenseCheckpoint, storage: str, name: str
) -> tuple[str, str]:
    """Copy a checkpoint's model to where a version of its own can keep it: (source, id of the logged model).

    storage: of the run's folder. OSError, ValueError, and what MLflow throws: it is not copied whole.
    """
    run = api.get_run(run_id)
    with tempfile.TemporaryDirectory(prefix="resnet-model-") as temporary:
        folder = Path(temporary) / "model"
        write_mlflow_model(folder, checkpoint, run_id)
        model = api.create_logged_model(
            run.info.experiment_id,
            name=name,
            source_run_id=run_id,
            tags={k: v for k, v in run.data.tags.items() if k.startswith("mlflow.source.") or k == "mlflow.user"},
            params=_params(checkpoint),
            model_type="resnet",
        )
        try:
            if "://" in storage and not storage.startswith("file://"):
                source = f"{storage.rstrip('/')}/registry/{name}/{run_id}"
                _upload(folder, source)
                only = Path(temporary) / "only"
                only.mkdir()
                shutil.copy(folder / "MLmodel", only / "MLmodel")
                api.log_model_artifacts(model.model_id, str(only))
            else:
                source = f"models:/{model.model_id}"
                api.log_model_artifacts(model.model_id, str(folder))
        except BaseException:
            api.finalize_logged_model(model.model_id, "FAILED")
            raise
    api.finalize_logged_model(model.model_id, "READY")
    _name_as_output(api, run_id, model.model_id)
    return source, model.model_id


def write_mlflow_model(folder: Path, checkpoint: Checkpoint | DenseCheckpoint, run_id: str | None = None) -> None:
    """A folder that is both: a checkpoint of ours without momentum, and a model of MLflow's flavour python_function."""
    from mlflow import pyfunc
    from mlflow.models import Model
    from mlflow.models.signature import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import Array, DataType

    from resnet.training.checkpoint import save_checkpoint, task_of

    save_checkpoint(folder, dataclasses.replace(checkpoint, optimizer={}))
    inputs: list[Any] = [ColSpec("binary", "image")]
    doubles, texts = Array(DataType.double), Array(DataType.string)
    columns: dict[str, list[Any]] = {
        "classification": [
            ColSpec("long", "id"),
            ColSpec("string", "wnid"),
            ColSpec("string", "name"),
            ColSpec("double", "probability"),
            ColSpec(doubles, "probabilities"),
        ],
        "detection": [ColSpec(Array(doubles), "boxes"), ColSpec(texts, "names"), ColSpec(doubles, "scores")],
        "segmentation": [ColSpec("binary", "mask"), ColSpec(texts, "classes")],
    }
    model = Model(run_id=run_id, signature=ModelSignature(Schema(inputs), Schema(columns[task_of(checkpoint.run)])))
    pyfunc.add_to_model(model, loader_module=LOADER, python_env="python_env.yaml")
    model.save(str(folder / "MLmodel"))
    needs = "".join(f"{package}=={metadata.version(package)}\n" for package in NEEDS)
    (folder / "requirements.txt").write_text(needs)
    (folder / "python_env.yaml").write_text("dependencies:\n- -r requirements.txt\n")


def _params(checkpoint: Checkpoint | DenseCheckpoint) -> dict[str, str]:
    """The description that MLflow's page of models shows beside the name."""
    recipe = checkpoint.recipe
    return {"network": recipe.network, "recipe": recipe.name, "step": str(checkpoint.progress.step)}


def _name_as_output(api: Any, run_id: str, model_id: str) -> None:
    """Show the model on the run's page."""
    from mlflow.entities import LoggedModelOutput

    api.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])


def _upload(folder: Path, target: str) -> None:
    """Put all files of a local folder into a bucket."""
    there = Folder(target)
    for file in sorted(folder.iterdir()):
        with there.writing(file.name) as stream:
            stream.write(file.read_bytes())


def local_copy(source: str, name: str) -> str:
    """Download what only MLflow can read into $RESNET_HOME/models, once; the folder there."""
    from mlflow.artifacts import download_artifacts

    uri = store_uri()
    tag = uuid.uuid5(uuid.NAMESPACE_URL, source).hex[:12]
    target = Path(home(), "models", f"{name}-{tag}")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="download-", dir=target.parent) as temporary:
            found = Path(download_artifacts(artifact_uri=source, dst_path=temporary, tracking_uri=uri))
            if not target.exists():
                found.rename(target)
    return str(target)
