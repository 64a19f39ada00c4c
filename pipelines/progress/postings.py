"""Statuses, requests to save and failures of runs, in Ray's key-value store."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

from pipelines.cluster import ray_internals
from pipelines.progress.status import Status
from pipelines.progress.training_metrics import export_metrics

KEY, SAVE, FAILED, ERROR = "resnet/progress/", "resnet/save/", "resnet/failed/", "resnet/error/"
ENDED = "resnet/ended/"  # a run that was stopped, in which there is nothing wrong
SWEEP = "resnet/sweep/"
RANK, STACK, ASK = "resnet/rank/", "resnet/stack/", "resnet/ask/"  # rank_beacon.py's; the first two have a key a rank


def post(status: Status) -> None:
    """Publish a status, from a worker."""
    ray_internals.put(KEY + status.run, status.model_dump_json().encode())


def last_status(run: str) -> Status | None:
    """The last status that was posted for a run, or None."""
    value = ray_internals.get(KEY + run)
    return None if value is None else _status(value)


def _status(value: bytes) -> Status:
    """A status as it was posted. A job of a later commit may say more than this one knows."""
    return Status(**{name: field for name, field in json.loads(value).items() if name in Status.model_fields})


def posted_runs() -> list[Status]:
    """The last status of every run on this cluster, whether it goes on or not."""
    values = (ray_internals.get(key) for key in ray_internals.keys_of(KEY))
    return [_status(value) for value in values if value is not None]


def forget(run: str) -> None:
    """Remove what an earlier try of a run posted."""
    for key in (KEY, SAVE, FAILED, ERROR, ENDED, ASK):
        ray_internals.delete(key + run)
    for prefix in (RANK, STACK):
        for key in ray_internals.keys_of(f"{prefix}{run}/"):
            ray_internals.delete(key)


def ask_to_save(run: str) -> None:
    """Ask a run to save its state soon, because it is about to be stopped."""
    ray_internals.put(SAVE + run, b"1")


def save_is_wanted(run: str) -> bool:
    """True if somebody has asked; answers yes once."""
    wanted = ray_internals.get(SAVE + run) is not None
    if wanted:
        ray_internals.delete(SAVE + run)
    return wanted


class StatusPoster:
    """Between rank 0 and its job: what it posts, and whether it was asked to save, by a thread of its own.

    A call takes up to ten milliseconds where all cores train, and the training would wait for it.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self._asked = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="post")
        self._last: Future[None] | None = None

    def post(self, status: Status) -> None:
        """Publish a status; the one before is out by then, or is waited for."""
        if self._last is not None:
            self._last.result()
        self._last = self._thread.submit(self._exchange, status)

    def _exchange(self, status: Status) -> None:
        post(status)
        export_metrics(status)
        if save_is_wanted(self.run):
            self._asked.set()

    def asked(self) -> bool:
        """True if somebody had asked to save by the last status; answers yes once."""
        if not self._asked.is_set():
            return False
        self._asked.clear()
        return True

    def close(self) -> None:
        """Wait until the last status is out."""
        self._thread.shutdown()
        if self._last is not None:
            self._last.result()


def fail(run: str, reason: str) -> None:
    """Say why a run cannot go on; another try would end the same way. The first word stays."""
    ray_internals.put(FAILED + run, reason.encode(), overwrite=False)


def failure(run: str) -> str | None:
    """The reason that a run cannot go on, or None."""
    reason = ray_internals.get(FAILED + run)
    return None if reason is None else reason.decode()


def has_failed(run: str) -> bool:
    """True if a run cannot go on."""
    return failure(run) is not None


def note_stop(run: str) -> None:
    """Say that a run was asked to end before it had; the same command goes on."""
    ray_internals.put(ENDED + run, b"stopped")


def was_stopped(run: str) -> bool:
    """True if a run was asked to end before it had."""
    return ray_internals.get(ENDED + run) is not None


def post_sweep(name: str, sentence: str) -> None:
    """Publish how far a sweep is, from its driver."""
    ray_internals.put(SWEEP + name, json.dumps([time.time(), sentence]).encode())


def posted_sweeps() -> list[tuple[float, str]]:
    """The last word of every sweep on this cluster: when, in seconds since 1970, and how far it is."""
    values = (ray_internals.get(key) for key in sorted(ray_internals.keys_of(SWEEP)))
    return [(at, sentence) for at, sentence in (json.loads(value) for value in values if value is not None)]


def note_error(run: str, text: str) -> bool:
    """Note the error that ended a try; whether the try before ended by the same at the same step."""
    status = last_status(run)
    told = f"{status.step if status else 0}: {text}".encode()
    before = ray_internals.get(ERROR + run)
    ray_internals.put(ERROR + run, told)
    return before == told
