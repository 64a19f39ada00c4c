"""MLflow: one run a training run, whatever its restarts; the registry, whose alias `champion` is what is served.

The only file that imports mlflow, which takes seconds: inside the functions, so that workers never pay for it.
"""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.progress import Status
from pipelines.run import Run, home
from resnet.checkpoint import EpochRow

MODEL = "resnet"
CHAMPION = "champion"
EXPERIMENT = "resnet"
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
    key = f"{run.storage_path}/{run.name}"
    where = experiment(api)
    found = api.search_runs([where], f"tags.`resnet.key` = '{key}'", max_results=1)
    if found:
        api.update_run(found[0].info.run_id, status="RUNNING")
        return found[0].info.run_id
    tags = {"resnet.key": key, "mlflow.runName": run.name, "git_commit": git_commit(), **tags}
    if parent:
        tags["mlflow.parentRunId"] = parent
    run_id = api.create_run(where, tags=tags).info.run_id
    _log(api, run_id, params=dict(flat(run.model_dump(mode="json"))))
    return run_id


def git_commit() -> str:
    """The commit of the working copy that this file belongs to, or unknown."""
    try:
        words = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested JSON as dotted names and text, for MLflow's params."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, str(value)


def log_rows(api: Any, run_id: str, rows: Sequence[EpochRow]) -> None:
    """Send the figures of epochs that the store does not have yet: a restart doubles none."""
    sent = {metric.step for metric in api.get_metric_history(run_id, "top1_error")}
    metrics = [
        (name, float(value), row.step)
        for row in rows
        if row.step not in sent
        for name, value in row.model_dump().items()
        if name != "step"
    ]
    _log(api, run_id, metrics=metrics)


def _log(
    api: Any, run_id: str, params: dict[str, str] | None = None, metrics: Sequence[tuple[str, float, int]] = ()
) -> None:
    """Params and metrics in batches of the size that MLflow takes."""
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    for start in range(0, len(metrics), 500):
        batch = [Metric(name, value, now, step) for name, value, step in metrics[start : start + 500]]
        api.log_batch(run_id, metrics=batch)
    if params:
        api.log_batch(run_id, params=[Param(name, value) for name, value in params.items()])


def register(api: Any, run_id: str, checkpoint: str, error: float, data: str) -> tuple[str, str]:
    """Register a checkpoint as a new version of `resnet`; serve it if it is better than the champion.

    error: top-1 in percent on the validation split of `data`. Returns the version and a sentence on the alias.
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
        if (old.get("data"), old.get("protocol")) != (data, PROTOCOL):
            return version, f"champion stays version {champion.version}: it was judged on other data"
        if float(old["top1_error"]) <= error:
            return version, f"champion stays version {champion.version}: {old['top1_error']} % against {error:.4f} %"
    api.set_registered_model_alias(MODEL, CHAMPION, version)
    before = f" (before: {champion.tags['top1_error']} %)" if champion is not None else ""
    return version, f"champion is now version {version}: top-1 error {error:.4f} %{before}"


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


class Recorder:
    """Follows one training run into MLflow from a thread of the driver: an outage delays records, never the training.

    What could not be sent is in the checkpoint's progress.json too; the next call for the same run sends it.
    """

    RETRY = 5.0  # seconds between two tries
    PATIENCE = 60.0  # seconds that the end of a run waits for the store

    def __init__(self, run: Run, tags: dict[str, str], parent: str | None = None) -> None:
        self.run, self.tags, self.parent = run, tags, parent
        self.run_id: str | None = None
        self.trouble: Exception | None = None
        self._rows: tuple[EpochRow, ...] = ()
        self._deadline = math.inf
        self._sent = 0
        self._wake, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"mlflow {run.name}", daemon=True)
        self._thread.start()

    def see(self, status: Status) -> None:
        """Take over the rows of a status that a worker posted."""
        self.rows(tuple(EpochRow(**row) for row in status.rows))

    def rows(self, rows: Sequence[EpochRow]) -> None:
        """Take over all rows so far."""
        if len(rows) > len(self._rows):
            self._rows = tuple(rows)
            self._wake.set()

    def _follow(self) -> None:
        while not (self._end.is_set() and (self._sent >= len(self._rows) and self.run_id)):
            try:
                self._send()
                self.trouble = None
                self._wake.wait()
                self._wake.clear()
            except Exception as trouble:  # whatever a store on a network throws; shown at the end
                self.trouble = trouble
                if self._end.wait(self.RETRY) and time.monotonic() > self._deadline:
                    return

    def _send(self) -> None:
        api = client()
        if self.run_id is None:
            self.run_id = start(api, self.run, self.tags, self.parent)
        rows = self._rows
        if len(rows) > self._sent:
            log_rows(api, self.run_id, rows)
            self._sent = len(rows)

    def _stop(self) -> bool:
        """End the thread; whether everything was sent."""
        self._deadline = time.monotonic() + self.PATIENCE
        self._end.set()
        self._wake.set()
        self._thread.join(self.PATIENCE + self.RETRY)
        if self.trouble is not None:
            print(f"MLflow cannot be reached, the run is not recorded there: {self.trouble}", file=sys.stderr)
        return self.trouble is None and self.run_id is not None

    def finish(self, outcome: Any, figure: str, data: str) -> dict[str, str]:
        """Record the end, and register the model; what the outcome gains by it."""
        gained = {"curves": figure}
        if not self._stop():
            return gained
        assert self.run_id is not None
        api = client()
        api.log_artifact(self.run_id, figure)
        api.log_dict(self.run_id, self.run.model_dump(mode="json"), "run.json")
        api.log_dict(self.run_id, outcome.model_dump(mode="json"), "outcome.json")
        api.set_tag(self.run_id, "checkpoint", outcome.checkpoint)
        gained["mlflow_run"] = self.run_id
        if self.run.promote:
            _keep_examples(outcome)
            version, sentence = register(api, self.run_id, outcome.checkpoint, outcome.top1_error, data)
            gained |= {"model_version": str(version), "champion": sentence}
        api.set_terminated(self.run_id, "FINISHED")
        return gained

    def fail(self, status: str) -> None:
        """Record that the run was stopped or failed."""
        if self._stop() and self.run_id is not None:
            client().set_terminated(self.run_id, status)


def _keep_examples(outcome: Any) -> None:
    """What the endpoint checks a registered model by. Without it the model is served unchecked, which is no failure."""
    from pipelines.models import keep_examples

    try:
        keep_examples(outcome.checkpoint, outcome.data)
    except (OSError, ValueError) as trouble:
        print(f"the registered model has no examples to check it by: {trouble}", file=sys.stderr)


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
