"""The registry's model: its versions, its aliases, its evaluation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from pipelines.run import home
from pipelines.tracking.mlflow_runs import client
from pipelines.tracking.mlflow_store import store_error
from resnet.host.home_folder import other_homes

MODEL = "resnet"
CHAMPION = "champion"
TASK = "classification"  # of one label an image; models of another task are never compared with it


@dataclass(frozen=True)
class Judged:
    """The judgement of a trained network: how many of `examples` validation images it gets wrong, by a protocol.

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

    def shown(self, wrong: int) -> str:
        """A count of wrong images as people read it."""
        return f"{100 * wrong / self.examples:.4f} %"

    @property
    def figure(self) -> str:
        """The name of what is shown."""
        return "top-1 error"

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
        """Number of images that a version got wrong; an older one notes the percentage with four decimals."""
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
                f"champion stays version {champion.version}: {judged.shown(wrong)} against {judged.shown(judged.wrong)}"
            )
    api.set_registered_model_alias(name, CHAMPION, version)
    was = ""
    if champion is not None and str(champion.version) != version:
        was = f" (before: {judged.shown(judged.wrong_of(champion.tags))})"
    return version, f"champion is now version {version}: {judged.figure} {judged.shown(judged.wrong)}{was}"


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
    require_task(api, name, judged.task)
    return name


def require_task(api: Any, name: str, task: str) -> None:
    """ValueError: a registered model of the name holds versions of another task, which nobody could serve together."""
    known = _model(api, name)
    theirs = None if known is None else known.tags.get("task", TASK)
    if theirs is not None and theirs != task:
        raise ValueError(f"model_name must be another for {task}, {name} holds versions of {theirs}")


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
        raise ValueError(f"model {model} cannot be looked up: {store_error(error)}") from None


def _where_else(uri: str) -> str:
    """Advice where a store knows no such model: train one, or look where results lie already."""
    if uri == f"sqlite:///{home()}/mlflow.db" and (others := other_homes()):
        return f"nothing is in {home()}, but {others[0]} holds results: set RESNET_HOME={others[0]}"
    return "`make train` trains and registers one"


def _found(api: Any, model: str) -> Any:
    """The version that a name means."""
    from mlflow.exceptions import MlflowException

    name, _, alias = model.partition("@")
    name, _, version = name.partition("/")
    known = _model(api, name)
    if known is None:
        raise ValueError(f"model must be registered, got {model!r}; {_where_else(api.tracking_uri)}")
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
    from pipelines.tracking.mlflow_model import local_copy

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
