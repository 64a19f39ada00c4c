"""MLflow: one run a training run, whatever its restarts; the registry, whose alias `champion` is what is served.

The only file that imports mlflow, which takes seconds: inside the functions, so that workers never pay for it.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.run import Run, home

if TYPE_CHECKING:
    from pipelines.progress import Status
    from resnet.checkpoint import EpochRow

MODEL = "resnet"
CHAMPION = "champion"
EXPERIMENT = "resnet"
COMMIT = "RESNET_GIT_COMMIT"  # environment variable by which a job learns the commit that it was submitted from
PROTOCOL = "single"  # the evaluation whose errors decide between two models


def client() -> Any:
    """An MLflow client of MLFLOW_TRACKING_URI, or of a SQLite file in $RESNET_HOME."""
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        Path(home()).mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{home()}/mlflow.db"
    # An outage is to show soon: who calls tries again. MLflow's own patience is seven tries of two minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(uri)
    return mlflow.MlflowClient(uri)


def experiment(api: Any, name: str = EXPERIMENT) -> str:
    """The experiment's id; made on first use, with its artifacts beside the default store."""
    found = api.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    # A server keeps artifacts itself; any other store would put them into ./mlruns, wherever that is.
    place = None if api.tracking_uri.startswith(("http", "databricks")) else Path(home(), "artifacts").as_uri()
    return api.create_experiment(name, artifact_location=place)


def start(api: Any, run: Run, tags: dict[str, str], parent: str | None = None) -> str:
    """The id of this training run's MLflow run: the one that an earlier start made, or a new one."""
    key = run.folder
    where = experiment(api)
    tags = {"git_commit": git_commit(), **versions(), **tags}
    if run.scaling.workers:
        tags["world_size"] = str(run.scaling.workers)
    found = api.search_runs([where], f"tags.`resnet.key` = '{key}'", max_results=1)
    if found:
        run_id = found[0].info.run_id
        api.update_run(run_id, status="RUNNING")
        tag(api, run_id, tags)  # what goes on may be another commit, on another machine
        return run_id
    tags |= {"resnet.key": key, "mlflow.runName": run.name}
    if parent:
        tags["mlflow.parentRunId"] = parent
    run_id = api.create_run(where, tags=tags).info.run_id
    _log(api, run_id, params=dict(flat(run.model_dump(mode="json"))))
    return run_id


def git_commit() -> str:
    """The commit that a job was submitted from, else that of the working copy this file belongs to, or unknown."""
    if given := os.environ.get(COMMIT):
        return given
    try:
        words = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions() -> dict[str, str]:
    """Libraries that a run's figures may depend on. What its workers run on, they say themselves."""
    return {name: metadata.version(name) for name in ("torch", "ray")}


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested JSON as dotted names and text, for MLflow's params."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, str(value)


def log_rows(api: Any, run_id: str, rows: Sequence[EpochRow]) -> None:
    """Send the figures of epochs that the store does not have yet: a restart doubles none."""
    sent = {metric.step for metric in api.get_metric_history(run_id, "train_error")}
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

    now = int((time.time() if at is None else at) * 1000)
    for start in range(0, len(metrics), 500):
        batch = [Metric(name, value, now, step) for name, value, step in metrics[start : start + 500]]
        api.log_batch(run_id, metrics=batch)
    if params:
        api.log_batch(run_id, params=[Param(name, value) for name, value in params.items()])


def register(api: Any, run_id: str, checkpoint: str, error: float, data: str, before: str = "") -> tuple[str, str]:
    """Register a checkpoint as a new version of `resnet`; serve it if it is better than the champion.

    error: top-1 in percent on the validation split of `data`, which older versions of this program call `before`.
    Returns the version and a sentence on the alias.
    """
    from mlflow.exceptions import MlflowException

    try:
        api.create_registered_model(MODEL)
    except MlflowException as exists:
        if exists.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {"top1_error": f"{error:.4f}", "data": data, "protocol": PROTOCOL}
    version = api.create_model_version(MODEL, checkpoint, run_id, tags=tags).version
    champion = by_alias(api, MODEL, CHAMPION)
    if champion is not None:
        old = champion.tags
        if old.get("data") not in (data, before) or old.get("protocol") != PROTOCOL:
            return version, f"champion stays version {champion.version}: it was judged on other data"
        if float(old["top1_error"]) <= error:
            return version, f"champion stays version {champion.version}: {old['top1_error']} % against {error:.4f} %"
    api.set_registered_model_alias(MODEL, CHAMPION, version)
    was = f" (before: {champion.tags['top1_error']} %)" if champion is not None else ""
    return version, f"champion is now version {version}: top-1 error {error:.4f} %{was}"


def by_alias(api: Any, name: str, alias: str) -> Any | None:
    """The version of a registered model that an alias names, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return api.get_model_version_by_alias(name, alias)
    except MlflowException:
        return None


def resolve(model: str) -> tuple[str, str]:
    """`resnet@champion` or `resnet/3` -> (checkpoint folder or URI, version). ValueError says what is missing."""
    from mlflow.exceptions import MlflowException

    api = client()
    name, _, alias = model.partition("@")
    name, _, version = name.partition("/")
    try:
        found = (
            api.get_model_version_by_alias(name, alias or CHAMPION)
            if not version
            else api.get_model_version(name, version)
        )
    except MlflowException:
        raise ValueError(f"model must be registered, got {model!r}; `make train` trains and registers one") from None
    return found.source.removeprefix("file://"), str(found.version)


def start_sweep(name: str, place: str) -> str | None:
    """The MLflow run that is the parent of a sweep's runs, made on first use; None if the store cannot be reached."""
    try:
        api = client()
        where, key = experiment(api), f"{place}/{name}"
        found = api.search_runs([where], f"tags.`resnet.key` = '{key}'", max_results=1)
        if found:
            api.update_run(found[0].info.run_id, status="RUNNING")
            return found[0].info.run_id
        tags = {"resnet.key": key, "mlflow.runName": name, "git_commit": git_commit()}
        return api.create_run(where, tags=tags).info.run_id
    except Exception as trouble:  # whatever a store on a network throws: tracking never stops a sweep
        print(f"MLflow cannot be reached, the sweep has no parent run: {trouble}", file=sys.stderr)
        return None


def close(key: str, status: str) -> None:
    """End the MLflow run of a sweep or of a stopped training, whose process cannot do it. key: its folder or URI."""
    try:
        api = client()
        for found in api.search_runs([experiment(api)], f"tags.`resnet.key` = '{key}'", max_results=1):
            api.set_terminated(found.info.run_id, status)
    except Exception as trouble:  # whatever a store on a network throws: tracking never stops a sweep
        print(f"MLflow cannot be reached, {key} is not recorded as {status}: {trouble}", file=sys.stderr)
