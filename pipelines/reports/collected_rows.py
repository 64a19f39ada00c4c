"""Rows of finished trainings for results/trainings: from run folders or MLflow, with errors of further protocols."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pyarrow.fs import FileType
from pydantic import Field

from pipelines.file_names import Output, below
from pipelines.shards.manifest import read_manifest
from pipelines.storage import Folder
from pipelines.tracking import mlflow_runs
from resnet.evaluation.final_test import FINAL_TEST
from resnet.evaluation.views import default_protocol
from resnet.frozen import FrozenSettings
from resnet.paper.result_rows import CurveRow, DataSet, ResultRow, read_results
from resnet.recipes.recipe import Recipe

ONE_DATA_SET = {"cifar10", "cifar100", "digits"}  # kinds of sources with one content; others are called by their folder
UNKNOWN = "unknown"
SEARCH = "search-"  # what the folder of a search begins with: its trainings are judged by held out images, for a choice
FOLDS = "folds-"  # the same of a cross-validation: each of its trainings is on another part of the data
PASSED_OVER = ("step-", SEARCH, FOLDS)


class Rows(FrozenSettings):
    """Which trainings a report is about, and where it goes."""

    out: Annotated[Output, Field(description="folder for report.html, report.md and figures/")]
    results: Annotated[str | None, Field(description="folder of result rows")] = None
    runs: Annotated[tuple[str, ...], Field(description="folders of runs or sweeps: $RESNET_HOME/runs/...")] = ()
    docs: Annotated[Output | None, Field(description="write the Markdown as this file as well")] = None
    export: Annotated[Output | None, Field(description="folder to keep the rows in, as JSON")] = None

    def read(self) -> tuple[ResultRow, ...]:
        """The rows of results and runs; of MLflow where neither is given. ValueError: a place has none."""
        found = () if self.results is None else read_results(self.results)
        if self.results is not None and not found:
            raise ValueError(f"results must be a folder with rows of finished trainings, got none in {self.results}")
        for folder in self.runs:
            rows = rows_under(folder)
            if not rows:
                there = Folder(folder).kind() == FileType.Directory
                what = "a folder without a finished training" if there else "no folder"
                raise ValueError(f"runs must be folders with finished trainings, got {folder}, which is {what}")
            found += rows
        if not (self.results or self.runs) and not (found := rows_from_mlflow()):
            raise ValueError("runs must be given where MLflow knows no finished training, as it does now")
        return found


def row_of_run(folder: str) -> ResultRow:
    """The row of a finished run from its folder, RUNS/<name>. ValueError: it is no run, or not finished."""
    place = Folder(folder)
    asked, outcome = _json(place, "asked.json"), _json(place, "outcome.json")
    if asked is None:
        raise ValueError(f"a run's folder must hold asked.json, got {folder}")
    if outcome is None:
        raise ValueError(f"{folder} holds no finished training: it has no outcome.json; the same command goes on")
    checkpoint = place.path(str(outcome["checkpoint"]).rstrip("/").rpartition("/")[2])
    progress = _json(Folder(checkpoint) if place.is_local else Folder(str(outcome["checkpoint"])), "progress.json")
    if progress is None:
        raise ValueError(f"the checkpoint of {folder} must hold progress.json, got {outcome['checkpoint']}")
    recorded = {name: progress.get(name, []) for name in ("conditions", "norms")}
    recorded["final"] = _json(place, FINAL_TEST)
    return _row(asked["recipe"], asked["seed"], asked["data_sha256"], outcome, progress["rows"], recorded, {})


def rows_under(folder: str) -> tuple[ResultRow, ...]:
    """The rows of all finished runs in a folder or in folders below it, e.g. of a sweep."""
    place = Folder(folder)
    names = [entry.name for entry in place.entries()]
    if "outcome.json" in names:
        return (row_of_run(folder),)
    inner = [e.name for e in place.entries() if e.is_folder and e.name != "tune" and not e.name.startswith(PASSED_OVER)]
    return tuple(row for name in inner for row in rows_under(below(folder, name)))


def rows_from_mlflow() -> tuple[ResultRow, ...]:
    """The rows of all finished runs that MLflow knows."""
    api = mlflow_runs.client()
    return tuple(_from_mlflow(api, run) for run in _finished(api, mlflow_runs.experiment(api)))


def _finished(api: Any, experiment: str) -> Iterator[Any]:
    """MLflow runs of trainings that ended well, the oldest first; a sweep's parent has no checkpoint."""
    token = None
    while True:
        page = api.search_runs(
            [experiment], "attributes.status = 'FINISHED'", order_by=["attributes.start_time ASC"], page_token=token
        )
        yield from (run for run in page if _is_result(run.data.tags))
        if not (token := page.token):
            return


def _is_result(tags: dict[str, str]) -> bool:
    """True if an MLflow run is a training of its own: no sweep, no trial of a search, no fold."""
    key = tags.get("resnet.key", "")
    return "checkpoint" in tags and not any(f"/{begun}" in key for begun in (SEARCH, FOLDS))


def _from_mlflow(api: Any, found: Any) -> ResultRow:
    run_id, tags = found.info.run_id, found.data.tags
    present = {artifact.path for artifact in api.list_artifacts(run_id)}
    with tempfile.TemporaryDirectory(prefix="results-") as folder:

        def read(name: str) -> Any:
            """A JSON artifact, or None."""
            if name not in present:
                return None
            return json.loads(Path(api.download_artifacts(run_id, name, folder)).read_bytes())

        run, outcome = read("run.json"), read("outcome.json")
        recorded = {name: (read(f"{name}.json") or {name: []})[name] for name in ("conditions", "norms")}
        recorded["final"] = read(FINAL_TEST)
    history = {name: api.get_metric_history(run_id, name) for name in CurveRow._fields if name != "step"}
    by_step: dict[int, dict[str, float]] = {}
    for name, metrics in history.items():
        for metric in metrics:
            by_step.setdefault(metric.step, {})[name] = metric.value
    rows = [{"top1_error": None, "step": step, **values} for step, values in sorted(by_step.items())]
    return _row(run["recipe"], run["seed"], tags["data_sha256"], outcome, rows, recorded, tags)


def _row(
    recipe: dict[str, Any],
    seed: int,
    sha256: str,
    outcome: dict[str, Any],
    rows: Sequence[Any],
    recorded: dict[str, Any],
    tags: dict[str, str],
) -> ResultRow:
    """rows: of epochs, with the fields of CurveRow at least; recorded: conditions, norms and final of ResultRow; tags:
    MLflow's, for what an outcome does not say."""
    parsed, init = Recipe(**recipe), outcome.get("init")
    return ResultRow(
        recipe=parsed,
        seed=seed,
        engine="ray",
        commit=outcome.get("commit") or tags.get("git_commit") or UNKNOWN,
        hardware=outcome.get("hardware") or tags.get("hardware") or UNKNOWN,
        data=_data(outcome["data"], sha256, outcome["examples"]),
        steps=outcome["steps"],
        total=outcome["steps"],
        seconds=outcome.get("train_seconds") or outcome["seconds"],
        cpu_seconds=outcome.get("cpu_seconds"),
        protocol=default_protocol(parsed.images),
        top1_error=outcome["top1_error"],
        top5_error=outcome["top5_error"],
        train_error=outcome["train_error"],
        init=None if init is None else "/".join(init.rstrip("/").split("/")[-2:]),  # without the machine's folders
        init_sha256=outcome.get("init_sha256"),
        curve=tuple(CurveRow(*(row[name] for name in CurveRow._fields)) for row in rows),
        **recorded,
    )


def _data(uri: str, sha256: str, val: int) -> DataSet:
    """The data set's name and sizes, from its manifest where it can still be read."""
    try:
        manifest = read_manifest(uri)
    except ValueError:
        return DataSet(name=uri.rstrip("/").rpartition("/")[2], sha256=sha256, val=val)
    source = manifest.source
    name = source.kind if source.kind in ONE_DATA_SET else source.path.rstrip("/").rpartition("/")[2]
    train, test = manifest.examples("train"), manifest.examples("val")
    holdout = val if val != test else 0
    if sha256 == manifest.fingerprint_before(holdout):
        sha256 = manifest.fingerprint(holdout)
    if holdout:  # judged by training images that were held out: never the paper's setting
        return DataSet(name=f"{name}, {val} held out", sha256=sha256, train=train - val, val=val)
    return DataSet(name=name, sha256=sha256, train=train, val=test)


def _json(folder: Folder, name: str) -> dict[str, Any] | None:
    try:
        return json.loads(folder.read(name))
    except FileNotFoundError:
        return None
