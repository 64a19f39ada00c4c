"""MLflow: one run a training run, whatever its restarts; the registry, whose alias `champion` is what is served.

Imports mlflow, which takes seconds, inside the functions, so that workers never pay for it; beside this file only
mlflow_model.py does.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import job_notice
from pipelines.file_names import below
from pipelines.provenance import COMMIT, git_commit, versions
from pipelines.run import TrainingRun, home
from pipelines.tracking import mlflow_store
from pipelines.tracking.mlflow_store import store_error

if TYPE_CHECKING:
    from pipelines.progress.status import Status
    from resnet.dense.dense_checkpoint import DenseRow
    from resnet.training.checkpoint import EpochRow

KIND = ("mlflow.experimentKind", "custom_model_development")  # MLflow's page shows trainings, not traces, by this tag
PARENT = "RESNET_MLFLOW_PARENT"  # environment variable with the MLflow run that a training's own is a child of


def client() -> Any:
    """An MLflow client of MLFLOW_TRACKING_URI, or of a SQLite file in $RESNET_HOME. ValueError: it names no store."""
    uri = mlflow_store.store_uri()
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        Path(home()).mkdir(parents=True, exist_ok=True)
    # An outage is to show soon: who calls tries again. MLflow's own patience is seven tries of two minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    given = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    if given is None:  # MLflow writes it there, where it would outlive this process's own choice
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = given
    return mlflow.MlflowClient(uri, os.environ.get("MLFLOW_REGISTRY_URI") or uri)


def check_tracking() -> str | None:
    """Look at the store before a training takes anything of the cluster. None: it is there; a sentence: it is away, and
    gets later what it misses. ValueError: it will not take a run, and why."""

    def ask() -> None:
        api = client()
        experiment(api)
        run_id = os.environ.get("MLFLOW_RUN_ID")
        if run_id and api.get_run(run_id).info.lifecycle_stage != "active":
            raise ValueError(f"MLFLOW_RUN_ID must be a run that is not deleted, got {run_id}")

    return mlflow_store.check_store(ask)


def experiment(api: Any, name: str | None = None) -> str:
    """The experiment's id: that of MLFLOW_EXPERIMENT_ID, or by MLFLOW_EXPERIMENT_NAME or `resnet`; made on first use,
    with its artifacts beside the default store. ValueError: it is deleted."""
    given = os.environ.get("MLFLOW_EXPERIMENT_ID") if name is None else None
    name = name or mlflow_store.experiment_name()
    found = api.get_experiment(given) if given else api.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage != "active":
            raise ValueError(
                f"MLflow's experiment must not be deleted, got {found.name}, which is: restore it with `mlflow "
                f"experiments restore --experiment-id {found.experiment_id}`, or name another by MLFLOW_EXPERIMENT_NAME"
            )
        return found.experiment_id
    # A server keeps artifacts itself; any other store would put them into ./mlruns, wherever that is.
    place = None if api.tracking_uri.startswith(("http", "databricks")) else Path(home(), "artifacts").as_uri()
    made = api.create_experiment(name, artifact_location=place)
    api.set_experiment_tag(made, *KIND)
    return made


def find_run(api: Any, where: str, key: str) -> Any | None:
    """The MLflow run of a training or a sweep. key: its folder or URI."""
    for found in api.search_runs([where], mlflow_store.key_filter(key)):
        if found.data.tags.get("resnet.key") == key:
            return found
    return None


def start(
    api: Any,
    run: TrainingRun,
    tags: dict[str, str],
    parent: str | None = None,
    began: float | None = None,
    dataset: RunDataset | None = None,
) -> str:
    """The id of this training run's MLflow run: the one that an earlier start made, MLFLOW_RUN_ID's, or a new one.

    began: seconds since 1970, of the training. parent: that of a sweep; else RESNET_MLFLOW_PARENT may name one.
    """
    key = run.folder
    where = experiment(api)
    tags = {"git_commit": git_commit(), **versions(), **tags}
    if run.scaling.workers:
        tags["world_size"] = str(run.scaling.workers)
    found, given = find_run(api, where, key), os.environ.get("MLFLOW_RUN_ID")
    if found is not None:
        run_id = found.info.run_id
        api.update_run(run_id, status="RUNNING")
        tag(api, run_id, tags)  # what goes on may be another commit, on another machine
        job_notice.add_facts(mlflow=run_page(api.tracking_uri, where, run_id))
        return run_id
    tags |= {"resnet.key": key, "mlflow.runName": run.name} | _source()
    if parent := parent or os.environ.get(PARENT):
        tags["mlflow.parentRunId"] = parent
    if given and "mlflow.parentRunId" not in tags:
        run_id = given
        api.update_run(run_id, status="RUNNING")
        tag(api, run_id, {name: value for name, value in tags.items() if name != "mlflow.runName"})
    else:
        run_id = api.create_run(where, start_time=_milliseconds(began), tags=tags).info.run_id
    job_notice.add_facts(mlflow=run_page(api.tracking_uri, where, run_id))
    _log(api, run_id, params=dict(flat(run.model_dump(mode="json"))))
    if dataset is not None:
        log_dataset(api, run_id, dataset)
    return run_id


def run_page(store: str, experiment_id: str, run_id: str) -> str:
    """The address of a run's page on an MLflow server; of a store without one, the run's id."""
    if not store.startswith(("http://", "https://")):
        return f"MLflow run {run_id}"
    return f"{mlflow_store.without_secrets(store).rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


def _milliseconds(at: float | None) -> int:
    return int((time.time() if at is None else at) * 1000)


def _source() -> dict[str, str]:
    """MLflow's own tags of where a run comes from: the program, the user, the commit."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a uid without a name
        user = str(os.getuid())
    kind = "JOB" if os.environ.get("RAY_JOB_ID") or os.environ.get(COMMIT) else "LOCAL"
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    found = {"mlflow.source.name": program, "mlflow.source.type": kind, "mlflow.user": user}
    return found | ({"mlflow.source.git.commit": commit} if (commit := git_commit()) != "unknown" else {})


@dataclass(frozen=True)
class RunDataset:
    """A data set as MLflow's page shows it. sha256: its fingerprint; profile: what is worth knowing of it."""

    name: str
    uri: str
    sha256: str
    profile: dict[str, int]


def log_dataset(api: Any, run_id: str, dataset: RunDataset) -> None:
    """Name the data of a run, as input for training."""
    from mlflow.entities import Dataset as Entity
    from mlflow.entities import DatasetInput, InputTag

    source = json.dumps({"uri": dataset.uri})
    kind = {"s3": "s3", "gs": "gs"}.get(dataset.uri.partition("://")[0], "local")
    entity = Entity(dataset.name[:500], dataset.sha256[:36], kind, source, profile=json.dumps(dataset.profile))
    api.log_inputs(run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])])


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested JSON as dotted names and text, for MLflow's params."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, str(value)


def log_rows(api: Any, run_id: str, rows: Sequence[EpochRow | DenseRow]) -> None:
    """Send the figures of epochs that the store does not have yet: a restart doubles none."""
    sent = {metric.step for metric in api.get_metric_history(run_id, "train_loss")}
    metrics = [
        (name, float(value), row.step)
        for row in rows
        if row.step not in sent
        for name, value in row.model_dump().items()
        if name != "step" and value is not None
    ]
    _log(api, run_id, metrics=metrics)


def tag(api: Any, run_id: str, tags: dict[str, str]) -> None:
    """Set tags of a run."""
    for name, value in tags.items():
        api.set_tag(run_id, name, value)


def log_samples(api: Any, run_id: str, samples: Sequence[Status]) -> None:
    """Send what was seen between the epochs: loss, speed and the machine; steps that are there already are left out."""
    last = max((metric.step for metric in api.get_metric_history(run_id, "running/loss")), default=-1)
    for sample in samples:
        if sample.step > last:
            values = {"running/loss": sample.loss, "running/images_per_second": sample.images_per_second}
            metrics = [(name, value, sample.step) for name, value in (values | sample.machine).items()]
            _log(api, run_id, metrics=metrics, at=sample.time)
            last = sample.step


def _log(
    api: Any,
    run_id: str,
    params: dict[str, str] | None = None,
    metrics: Sequence[tuple[str, float, int]] = (),
    at: float | None = None,
) -> None:
    """Params and metrics in batches of the size that MLflow takes. at: seconds since 1970; None: now."""
    from mlflow.entities import Metric, Param

    now = _milliseconds(at)
    for start in range(0, len(metrics), 500):
        batch = [Metric(name, value, now, step) for name, value, step in metrics[start : start + 500]]
        api.log_batch(run_id, metrics=batch)
    entities = [Param(name, value) for name, value in (params or {}).items()]
    for start in range(0, len(entities), 100):
        api.log_batch(run_id, params=entities[start : start + 100])


def start_sweep(name: str, place: str, params: dict[str, Any] | None = None) -> str | None:
    """The MLflow run that is the parent of a sweep's runs, made on first use; None if the store does not take it.

    params: what was asked for, nested JSON.
    """
    try:
        api = client()
        where, key = experiment(api), below(place, name)
        found = find_run(api, where, key)
        if found is not None:
            api.update_run(found.info.run_id, status="RUNNING")
            job_notice.add_facts(mlflow=run_page(api.tracking_uri, where, found.info.run_id))
            return found.info.run_id
        tags = {"resnet.key": key, "mlflow.runName": name, "git_commit": git_commit()} | _source()
        if given := os.environ.get("MLFLOW_RUN_ID"):
            api.update_run(given, status="RUNNING")
            tag(api, given, {name: value for name, value in tags.items() if name != "mlflow.runName"})
            run_id = given
        else:
            if parent := os.environ.get(PARENT):
                tags["mlflow.parentRunId"] = parent
            run_id = api.create_run(where, tags=tags).info.run_id
        job_notice.add_facts(mlflow=run_page(api.tracking_uri, where, run_id))
        _log(api, run_id, params=dict(flat(params or {})))
        return run_id
    except Exception as trouble:  # whatever a store on a network throws: tracking never stops a sweep
        print(f"the sweep has no parent run: {store_error(trouble)}", file=sys.stderr)
        return None


def summarise(key: str, metrics: dict[str, float], table: str) -> None:
    """Give the MLflow run of a sweep what came out: figures, and the table as table.txt. key: its folder or URI."""
    try:
        api = client()
        if (found := find_run(api, experiment(api), key)) is not None:
            # MLflow takes no @ in a metric's name
            named = [(re.sub(r"[^\w./ -]", "_", name), value, 0) for name, value in metrics.items()]
            _log(api, found.info.run_id, metrics=named)
            api.log_text(found.info.run_id, table, "table.txt")
    except Exception as trouble:  # whatever a store on a network throws: tracking never stops a sweep
        print(f"the sweep's table is not recorded: {store_error(trouble)}", file=sys.stderr)


def close(key: str, status: str) -> None:
    """End the MLflow run of a sweep or of a stopped training, whose process cannot do it. key: its folder or URI."""
    try:
        api = client()
        if (found := find_run(api, experiment(api), key)) is not None:
            api.set_terminated(found.info.run_id, status)
    except Exception as trouble:  # whatever a store on a network throws: tracking never stops a sweep
        print(f"{key} is not recorded as {status}: {store_error(trouble)}", file=sys.stderr)
