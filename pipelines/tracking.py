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
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pipelines import mlflow_store
from pipelines.mlflow_store import EXPERIMENT, reason
from pipelines.run import Run, home

if TYPE_CHECKING:
    from pipelines.progress import Status
    from resnet.checkpoint import EpochRow

MODEL = "resnet"
CHAMPION = "champion"
TASK = "classification"  # of one label an image; models of another task are never compared with it
COMMIT = "RESNET_GIT_COMMIT"  # environment variable by which a job learns the commit that it was submitted from
KIND = ("mlflow.experimentKind", "custom_model_development")  # MLflow's page shows trainings, not traces, by this tag
PARENT = "RESNET_MLFLOW_PARENT"  # environment variable with the MLflow run that a training's own is a child of

__all__ = ["CHAMPION", "COMMIT", "EXPERIMENT", "MODEL", "Judged", "client", "register", "resolve", "start"]


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
    mlflow.set_tracking_uri(uri)
    return mlflow.MlflowClient(uri, os.environ.get("MLFLOW_REGISTRY_URI") or uri)


def look() -> str | None:
    """Look at the store before a training takes anything of the cluster. None: it is there; a sentence: it is away, and
    gets later what it misses. ValueError: it will not take a run, and why."""

    def ask() -> None:
        api = client()
        experiment(api)
        run_id = os.environ.get("MLFLOW_RUN_ID")
        if run_id and api.get_run(run_id).info.lifecycle_stage != "active":
            raise ValueError(f"MLFLOW_RUN_ID must be a run that is not deleted, got {run_id}")

    return mlflow_store.look(ask)


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
    run: Run,
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
    _log(api, run_id, params=dict(flat(run.model_dump(mode="json"))))
    if dataset is not None:
        log_dataset(api, run_id, dataset)
    return run_id


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

    now = _milliseconds(at)
    for start in range(0, len(metrics), 500):
        batch = [Metric(name, value, now, step) for name, value, step in metrics[start : start + 500]]
        api.log_batch(run_id, metrics=batch)
    entities = [Param(name, value) for name, value in (params or {}).items()]
    for start in range(0, len(entities), 100):
        api.log_batch(run_id, params=entities[start : start + 100])


@dataclass(frozen=True)
class Judged:
    """What a trained network is judged by: how many of `examples` validation images it gets wrong, by a protocol.

    data: fingerprint of the data set; before: the same as older versions of this program note it; name: to people.
    """

    wrong: int
    examples: int
    data: str
    protocol: str
    before: str = ""
    name: str = ""
    task: str = TASK

    @classmethod
    def by_error(cls, top1_error: float, examples: int, data: str, protocol: str, **more: str) -> Judged:
        """From the top-1 error in percent, which is a count of images."""
        return cls(round(top1_error * examples / 100), examples, data, protocol, **more)

    @property
    def error(self) -> float:
        """Top-1 in percent."""
        return 100 * self.wrong / self.examples

    @property
    def tags(self) -> dict[str, str]:
        """Tags of a registered version."""
        return {
            "top1_error": repr(self.error),
            "top1_wrong": str(self.wrong),
            "examples": str(self.examples),
            "data": self.data,
            "protocol": self.protocol,
            "task": self.task,
        }

    def other(self, tags: dict[str, str]) -> str | None:
        """By what else a version was judged, or None where the two can be compared. Older versions have no count, and
        say protocol single whatever it was."""
        if (
            tags.get("data") not in (self.data, self.before)
            or int(tags.get("examples", self.examples)) != self.examples
        ):
            return "on other data"
        if tags.get("task", self.task) != self.task:
            return f"for {tags['task']}, this one for {self.task}"
        if "top1_wrong" in tags and tags.get("protocol") != self.protocol:
            return f"by {tags.get('protocol')}, this one by {self.protocol}"
        return None

    def wrong_of(self, tags: dict[str, str]) -> int:
        """How many images a version got wrong; an older one notes the percentage with four decimals."""
        return (
            int(tags["top1_wrong"]) if "top1_wrong" in tags else round(float(tags["top1_error"]) * self.examples / 100)
        )


def register(
    api: Any, run_id: str, checkpoint: str, judged: Judged, name: str, publish: Callable[[], tuple[str, str | None]]
) -> tuple[str, str]:
    """Register a checkpoint as a new version of a model; serve it if it gets fewer images wrong than the champion does.

    publish: puts the files where the version keeps them, (source, id of the logged model). Registered again, after an
    outage at the end, a checkpoint is the version that it was. Returns the version and a sentence on the alias.
    """
    version = _version_of(api, name, run_id, checkpoint)
    if version is None:
        source, model_id = publish()
        tags = judged.tags | {"checkpoint": checkpoint}
        version = str(api.create_model_version(name, source, run_id, tags=tags, model_id=model_id).version)
        if model_id is not None:  # by which MLflow's page leads from the model to the version
            versions = json.dumps([{"name": name, "version": int(version)}])
            api.set_logged_model_tags(model_id, {"mlflow.modelVersions": versions})
    champion = by_alias(api, name, CHAMPION)
    if champion is not None and str(champion.version) != version:
        other = judged.other(champion.tags)
        if other is not None:
            return version, f"champion stays version {champion.version}: it was judged {other}"
        wrong = judged.wrong_of(champion.tags)
        if wrong <= judged.wrong:
            return version, (
                f"champion stays version {champion.version}: {_errors(wrong, judged.examples)} against "
                f"{_errors(judged.wrong, judged.examples)}"
            )
    api.set_registered_model_alias(name, CHAMPION, version)
    was = ""
    if champion is not None and str(champion.version) != version:
        was = f" (before: {_errors(judged.wrong_of(champion.tags), judged.examples)})"
    return version, f"champion is now version {version}: top-1 error {_errors(judged.wrong, judged.examples)}{was}"


def _errors(wrong: int, examples: int) -> str:
    return f"{100 * wrong / examples:.4f} %"


def _version_of(api: Any, name: str, run_id: str, checkpoint: str) -> str | None:
    """The version that a checkpoint of a run is already, or None."""
    found = api.search_model_versions(f"run_id = '{run_id}'")
    mine = (v for v in found if v.name == name and v.tags.get("checkpoint", v.source) == checkpoint)
    return next((str(version.version) for version in mine), None)


def model_name(api: Any, asked: str | None, judged: Judged) -> str:
    """The registered model that a version goes to, made on first use: as asked, else `resnet` for the data set that it
    was first trained on, and a model of its own, resnet-DATA, for any other data set or task."""
    name = asked or MODEL
    if asked is None and (known := _model(api, MODEL)) is not None:
        mine = {"data": judged.data, "task": judged.task}
        tags = dict(known.tags)
        if "data" not in tags:  # made by an older version of this program
            champion = by_alias(api, MODEL, CHAMPION)
            tags = {} if champion is None else champion.tags
        holds = {"data": tags.get("data", judged.data), "task": tags.get("task", judged.task)}
        if holds["data"] == judged.before:
            holds["data"] = judged.data
        if holds != mine:
            label = re.sub(r"[^A-Za-z0-9_.-]+", "-", judged.name).strip("-.") or judged.data[:8]
            name = f"{MODEL}-{label}"
            other = _model(api, name)
            if other is not None and other.tags.get("data", judged.data) != judged.data:
                name = f"{name}-{judged.data[:8]}"
    if _model(api, name) is None:
        api.create_registered_model(name, tags={"data": judged.data, "task": judged.task})
    return name


def _model(api: Any, name: str) -> Any | None:
    """A registered model, or None where there is none of the name."""
    from mlflow.exceptions import MlflowException

    try:
        return api.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def by_alias(api: Any, name: str, alias: str) -> Any | None:
    """The version of a registered model that an alias names, or None where there is no such model, alias or version.

    Any other error is raised: a store that does not answer says nothing about its aliases. MLflow answers a missing
    alias as a wrong parameter, so the model is asked which it has.
    """
    from mlflow.exceptions import MlflowException

    model = _model(api, name)
    version = None if model is None else model.aliases.get(alias)
    if version is None:
        return None
    try:
        return api.get_model_version(name, str(version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def resolve(model: str) -> tuple[str, str]:
    """`resnet@champion` or `resnet/3` -> (checkpoint folder or URI, version). ValueError says what is missing, or why
    the store does not say."""
    try:
        api = client()
        found = _found(api, model)
        return place_of(api, found), str(found.version)
    except ValueError:
        raise
    except Exception as error:  # whatever a store on a network throws
        raise ValueError(f"model {model} cannot be looked up: {reason(error)}") from None


def _found(api: Any, model: str) -> Any:
    """The version that a name means."""
    from mlflow.exceptions import MlflowException

    name, _, alias = model.partition("@")
    name, _, version = name.partition("/")
    known = _model(api, name)
    if known is None:
        raise ValueError(f"model must be registered, got {model!r}; `make train` trains and registers one")
    if not version:
        found = by_alias(api, name, alias or CHAMPION)
        if found is None:
            has = ", ".join(f"{name}@{known}" for known in sorted(known.aliases)) or "none"
            raise ValueError(f"model must be registered, got {model!r}; aliases of {name}: {has}")
        return found
    try:
        return api.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ValueError(f"model must be registered, got {model!r}; {name} has no version {version}") from None


def place_of(api: Any, version: Any) -> str:
    """Folder or URI of a registered version's checkpoint. What only MLflow reads is copied into $RESNET_HOME once."""
    from pipelines.mlflow_model import local_copy

    source = version.source
    if source.partition(":")[0] in ("models", "runs"):
        source = api.get_model_version_download_uri(version.name, str(version.version))
    if source.startswith("file://"):
        return unquote(urlsplit(source).path)
    if "://" not in source and not source.startswith("mlflow-artifacts:"):
        return source
    if source.partition(":")[0] in ("s3", "gs", "gcs", "abfs", "abfss"):
        return source
    return local_copy(source, f"{version.name}-{version.version}")


def start_sweep(name: str, place: str, params: dict[str, Any] | None = None) -> str | None:
    """The MLflow run that is the parent of a sweep's runs, made on first use; None if the store does not take it.

    params: what was asked for, nested JSON.
    """
    try:
        api = client()
        where, key = experiment(api), f"{place}/{name}"
        found = find_run(api, where, key)
        if found is not None:
            api.update_run(found.info.run_id, status="RUNNING")
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
        _log(api, run_id, params=dict(flat(params or {})))
        return run_id
    except Exception as trouble:  # whatever a store on a network throws: tracking never stops a sweep
        print(f"the sweep has no parent run: {reason(trouble)}", file=sys.stderr)
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
        print(f"the sweep's table is not recorded: {reason(trouble)}", file=sys.stderr)


def close(key: str, status: str) -> None:
    """End the MLflow run of a sweep or of a stopped training, whose process cannot do it. key: its folder or URI."""
    try:
        api = client()
        if (found := find_run(api, experiment(api), key)) is not None:
            api.set_terminated(found.info.run_id, status)
    except Exception as trouble:  # whatever a store on a network throws: tracking never stops a sweep
        print(f"{key} is not recorded as {status}: {reason(trouble)}", file=sys.stderr)
