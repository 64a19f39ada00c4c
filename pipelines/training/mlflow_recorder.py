"""Follows a training run into MLflow, beside the training, and keeps what cannot be sent until it can be."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from pipelines.progress.status import Status
from pipelines.run import TrainingRun
from pipelines.tracking import mlflow_runs, model_registry
from pipelines.tracking.mlflow_store import store_error


class Outcome(Protocol):
    """Outcome of a training of any task."""

    @property
    def checkpoint(self) -> str:
        """Folder or URI of the last one."""
        ...

    @property
    def data(self) -> str:
        """The shards."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """As JSON's objects."""
        ...


def epochs_csv(rows: Sequence[Any]) -> str:
    """The figures of all epochs as CSV."""
    lines = [row.model_dump() for row in rows]
    return "\n".join([",".join(lines[0]), *(",".join(map(str, line.values())) for line in lines)]) + "\n"


class Recorder:
    """Follows one training run into MLflow from a thread of the driver: an outage delays records, never the training.

    What could not be sent is in the checkpoint's progress.json too; the next call for the same run sends it.
    """

    RETRY = 5.0  # seconds between two tries
    SAMPLE = 10.0  # seconds between two samples of loss, speed and machine
    PATIENCE = 60.0  # seconds that the end of a run waits for the store

    def __init__(
        self,
        run: TrainingRun,
        tags: dict[str, str],
        parent: str | None = None,
        dataset: mlflow_runs.RunDataset | None = None,
        began: float | None = None,
    ) -> None:
        self.run, self.tags, self.parent, self.dataset = run, tags, parent, dataset
        self.began = time.time() if began is None else began  # MLflow's own duration counts from here
        self.run_id: str | None = None
        self.trouble: Exception | None = None
        self._rows: tuple[Any, ...] = ()
        self._samples: list[Status] = []
        self._deadline = math.inf
        self._sent = self._sampled = 0
        self._conditions: dict[str, str] = {}
        self._tagged: dict[str, str] = {}
        self._wake, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"mlflow {run.name}", daemon=True)
        self._thread.start()

    def see(self, status: Status) -> None:
        """Take over what a worker posted."""
        if status.conditions and status.conditions != self._conditions:
            self._conditions = status.conditions
            self._wake.set()
        if not self._samples or status.time - self._samples[-1].time > self.SAMPLE:
            self._samples.append(status.model_copy(update={"rows": ()}))
            self._wake.set()
        self.rows(tuple(self._row(row) for row in status.rows))

    def _row(self, fields: dict[str, Any]) -> Any:
        """An epoch as it was posted."""
        from resnet.training.checkpoint import EpochRow

        return EpochRow(**fields)

    def rows(self, rows: Sequence[Any]) -> None:
        """Take over all rows so far."""
        if len(rows) > len(self._rows):
            self._rows = tuple(rows)
            self._wake.set()

    def _follow(self) -> None:
        self._wake.wait()  # until the training has begun: the import of mlflow would slow its start by seconds
        while not (self._end.is_set() and self._all_is_sent()):
            try:
                self._send()
                self.trouble = None
                if not self._end.is_set():
                    self._wake.wait()
                    self._wake.clear()
            except Exception as trouble:  # whatever a store on a network throws; shown at the end
                self.trouble = trouble
                if self._end.wait(self.RETRY) and time.monotonic() > self._deadline:
                    return
                if self._end.is_set():
                    time.sleep(0.2)

    def _all_is_sent(self) -> bool:
        done = self._sent >= len(self._rows) and self._sampled >= len(self._samples)
        return self.run_id is not None and done

    def _send(self) -> None:
        api = mlflow_runs.client()
        if self.run_id is None:
            self.run_id = mlflow_runs.start(api, self.run, self.tags, self.parent, self.began, self.dataset)
        conditions, rows = self._conditions, self._rows
        if conditions != self._tagged:
            mlflow_runs.tag(api, self.run_id, conditions)
            self._tagged = conditions
        if len(rows) > self._sent:
            mlflow_runs.log_rows(api, self.run_id, rows)
            self._sent = len(rows)
        if samples := self._samples[self._sampled :]:
            mlflow_runs.log_samples(api, self.run_id, samples)
            self._sampled += len(samples)

    def _stop(self) -> bool:
        """End the thread; whether everything was sent."""
        self._deadline = time.monotonic() + self.PATIENCE
        self._end.set()
        self._wake.set()
        self._thread.join(self.PATIENCE + self.RETRY)
        if self._thread.is_alive() and self.trouble is None:
            self.trouble = TimeoutError(f"no answer for {self.PATIENCE:g} s")
        return self.trouble is None

    def finish(
        self,
        outcome: Outcome,
        figure: str,
        judged: model_registry.Judged,
        records: Mapping[str, Any] = MappingProxyType({}),
    ) -> dict[str, str]:
        """Record the end, and register the model; what the outcome gains by it. Without `mlflow_run`: not recorded.

        figure: a local file; records: what else is kept, by the name of its JSON file.
        """
        gained: dict[str, str] = {}
        try:
            if self._stop():
                gained |= self._conclude(outcome, figure, judged, records)
        except Exception as trouble:  # the training has ended well, whatever a store on a network throws
            self.trouble = trouble
        if self.trouble is not None:
            print(
                f"the run is not recorded: {store_error(self.trouble)}; the same command records it when that can be",
                file=sys.stderr,
            )
        return gained

    def _conclude(
        self, outcome: Outcome, figure: str, judged: model_registry.Judged, records: Mapping[str, Any]
    ) -> dict[str, str]:
        """Artifacts, the checkpoint's place, the registry."""
        assert self.run_id is not None
        api = mlflow_runs.client()
        api.log_artifact(self.run_id, figure)
        api.log_dict(self.run_id, self.run.model_dump(mode="json"), "run.json")
        api.log_dict(self.run_id, outcome.model_dump(mode="json"), "outcome.json")
        api.log_text(self.run_id, epochs_csv(self._rows), "epochs.csv")
        for name, content in records.items():
            api.log_dict(self.run_id, content, name)
        api.set_tag(self.run_id, "checkpoint", outcome.checkpoint)
        gained = {"mlflow_run": self.run_id}
        if self.run.promote:
            gained |= self._register(api, outcome.checkpoint, outcome.data, judged)
        api.set_terminated(self.run_id, "FINISHED")
        return gained

    def fail(self, status: str) -> None:
        """Record that the run was stopped or failed, if the store can be reached."""
        try:
            if self._stop() and self.run_id is not None:
                mlflow_runs.client().set_terminated(self.run_id, status)
        except Exception as trouble:  # the run's own failure is what counts
            print(f"the run is not recorded as {status}: {store_error(trouble)}", file=sys.stderr)

    def _register(self, api: Any, checkpoint: str, data: str, judged: model_registry.Judged) -> dict[str, str]:
        """The model as a version of a registered model, with files of its own; what the outcome gains by it."""
        from pipelines.tracking import mlflow_model

        assert self.run_id is not None
        run_id, storage = self.run_id, self.run.storage_path
        name = model_registry.model_name(api, self.run.model_name, judged)

        def publish() -> tuple[str, str | None]:
            return mlflow_model.publish(api, run_id, self._published(checkpoint, data), storage, name)

        version, sentence = model_registry.register(api, run_id, checkpoint, judged, name, publish)
        return {"model_name": name, "model_version": version, "champion": sentence}

    def _published(self, checkpoint: str, data: str) -> Any:
        """The checkpoint that is registered, with what the endpoint checks it by."""
        from pipelines.models.by_name import read_checkpoint

        _keep_examples(checkpoint, data)
        return read_checkpoint(checkpoint)


def _keep_examples(checkpoint: str, data: str) -> None:
    """Images and answers by which the endpoint checks a registered model. Without them it is served unchecked."""
    from pipelines.models.by_name import keep_examples

    try:
        keep_examples(checkpoint, data)
    except (OSError, ValueError) as trouble:
        print(f"the registered model has no examples to check it by: {trouble}", file=sys.stderr)
