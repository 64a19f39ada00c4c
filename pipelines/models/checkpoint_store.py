"""The checkpoints of a run in its folder or bucket: written beside the training, the last and the best kept.

Not by ray.train.report: that is a barrier of all ranks, a report that the controller has not yet seen is lost with a
killed worker, and an upload that fails ends the worker. Here rank 0 hands a copy of the state to a thread and goes on.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pipelines.file_names import below
from pipelines.storage import Folder, patiently
from resnet.training.checkpoint import TENSORS, Checkpoint, EpochRow, load_checkpoint, save_checkpoint
from resnet.training.finetuning.epoch_choice import figure

if TYPE_CHECKING:
    from pipelines.run import Run

PREFIX = "step-"
WHOLE = re.compile(r"step-\d{8}")  # other names with the prefix are what a kill left of a write
LAST_FILE = "progress.json"  # uploaded last: a checkpoint that has it is whole


class CheckpointStore:
    """The checkpoints step-00000000, ... in a run's folder. keep: the best that stay beside the last.

    by: what they are judged by, as Selection has it.
    """

    def __init__(self, folder: str, keep: int, by: str = "last") -> None:
        self.folder, self.keep, self.by = Folder(folder), keep, by

    @classmethod
    def of(cls, run: Run) -> Self:
        """Those of a run."""
        return cls(run.folder, run.checkpoints.keep, run.recipe.selection.by)

    def names(self) -> list[str]:
        """Whole checkpoints, oldest first."""
        found = [e.name for e in self.folder.entries() if e.is_folder and WHOLE.fullmatch(e.name)]
        return [n for n in found if any(e.name == LAST_FILE for e in self.folder.entries(n))]

    @staticmethod
    def name_of(step: int) -> str:
        """The name of the checkpoint of a step."""
        return f"{PREFIX}{step:08d}"

    def path(self, name: str) -> str:
        """Local path or URI of a checkpoint."""
        return self.folder.path(name) if self.folder.is_local else below(self.folder.uri, name)

    def rows(self) -> tuple[EpochRow, ...]:
        """The epochs that the newest checkpoint knows of; none without one."""
        found = self.latest()
        return found[1].progress.rows if found else ()

    def latest(self) -> tuple[str, Any] | None:
        """Name and content of the newest checkpoint that can be read; a damaged one is passed over, and said so."""
        for name in reversed(patiently(self.names, self.folder.uri)):
            try:
                return name, patiently(partial(self.read, name), self.folder.uri)
            except (ValueError, OSError) as error:
                print(f"checkpoint {self.path(name)} is passed over: {error}", file=sys.stderr)
        return None

    def read(self, name: str) -> Any:
        """One checkpoint. ValueError: damaged."""
        with self.local(name) as folder:
            return self._load(folder)

    def _load(self, folder: Path) -> Any:
        """Of a classification; other tasks have stores of their own."""
        return load_checkpoint(folder)

    def _judged(self, row: dict[str, Any]) -> float | None:
        """Figure that an epoch's checkpoint is kept for, lower is better; None: it was not evaluated."""
        return figure(EpochRow(**row), self.by)

    @contextlib.contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """A local folder with the files of a checkpoint."""
        if self.folder.is_local:
            yield Path(self.folder.path(name))
            return
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as folder:
            for entry in self.folder.entries(name):
                (Path(folder) / entry.name).write_bytes(self.folder.read(f"{name}/{entry.name}"))
            yield Path(folder)

    def write(self, checkpoint: Any) -> str:
        """Write a checkpoint, whole or not at all, and remove those that need not be kept. OSError if it cannot be."""
        name = self.name_of(checkpoint.progress.step)
        if name in self.names():
            return name
        self.folder.remove(name)  # what a stopped upload left
        if self.folder.is_local:
            save_checkpoint(self.folder.path(name), checkpoint)
        else:
            with tempfile.TemporaryDirectory(prefix="checkpoint-") as temporary:
                save_checkpoint(Path(temporary) / name, checkpoint)
                files = sorted((Path(temporary) / name).iterdir(), key=lambda file: file.name == LAST_FILE)
                for file in files:
                    with self.folder.writing(f"{name}/{file.name}") as target:
                        target.write(file.read_bytes())
        self._prune()
        return name

    def _prune(self) -> None:
        names = self.names()
        errors = {name: self._error(name) for name in names}
        judged = sorted((n for n in names if errors[n] is not None), key=lambda n: (errors[n], n))
        torn = {e.name for e in self.folder.entries() if e.name.startswith(PREFIX) and not WHOLE.fullmatch(e.name)}
        for name in torn | set(names[:-1]) - set(judged[: self.keep]):
            self.folder.remove(
                f"{name}/{LAST_FILE}"
            )  # first: a removal that is cut short leaves nothing that seems whole
            self.folder.remove(name)

    def _error(self, name: str) -> float | None:
        """The figure that this checkpoint is judged by, lower is better; None inside an epoch."""
        progress = json.loads(self.folder.read(f"{name}/{LAST_FILE}"))
        rows = progress["rows"]
        if not rows or rows[-1]["step"] != progress["step"]:
            return None
        return self._judged(rows[-1])


def at(uri: str) -> Checkpoint:
    """The checkpoint in a folder or bucket. ValueError: there is none, or it is damaged."""
    place, mark, options = uri.partition("?") if "://" in uri else (uri, "", "")
    folder, _, name = place.rstrip("/").rpartition("/")
    checkpoints = CheckpointStore(f"{folder or '.'}{mark}{options}", keep=1)
    try:
        if name in checkpoints.names():
            return checkpoints.read(name)
    except OSError as error:
        raise ValueError(f"resume must be a checkpoint that can be read, got {place}: {error}") from None
    raise ValueError(f"resume must be never, auto or a checkpoint, got {place}")


class Writer:
    """A thread that writes checkpoints, so that the training does not wait. A newer one replaces one that waits.

    One that could not be written is tried again every RETRY seconds, until it is written or a newer one comes.
    """

    RETRY = 5.0

    def __init__(self, checkpoints: CheckpointStore) -> None:
        self.checkpoints = checkpoints
        self.written: str | None = None
        self.trouble: str | None = None
        self._waiting: Checkpoint | None = None
        self._busy = False
        self._end = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
        self._thread.start()

    def submit(self, checkpoint: Checkpoint) -> None:
        """Hand over a checkpoint whose tensors nobody changes any more."""
        with self._change:
            self._waiting = checkpoint
            self._change.notify_all()

    def flush(self) -> None:
        """Wait until all that was handed over is written, or has failed."""
        with self._change:
            self._change.wait_for(lambda: not self._busy and (self._waiting is None or self.trouble is not None))

    def close(self, patience: float = 120.0, tell: Callable[[], None] = lambda: None) -> None:
        """Write what waits, trying again for so many seconds if it has to be, and end the thread. Then `trouble` says
        how it went. tell: called about once a second while that takes."""
        deadline = time.monotonic() + patience
        while not (done := self._is_done(min(1.0, patience))) and time.monotonic() < deadline:
            tell()
        with self._change:
            if not done and self.trouble is None:
                self.trouble = f"a checkpoint is still being written to {self.checkpoints.folder.shown}"
            self._end = True
            self._change.notify_all()
        self._thread.join(self.RETRY)

    def _is_done(self, patience: float) -> bool:
        """True if all that was handed over is written within so many seconds."""
        with self._change:
            return self._change.wait_for(lambda: self._waiting is None and not self._busy, patience)

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting is not None or self._end)
                if self._end:
                    return
                checkpoint, self._waiting, self._busy = self._waiting, None, True
            assert checkpoint is not None
            try:
                self.written = self.checkpoints.write(checkpoint)
                self.trouble = None
            except Exception as error:  # a full disk, a lost bucket; each library has errors of its own for them
                self.trouble = self._why(checkpoint, error)
            with self._change:
                self._busy = False
                if self.trouble and self._waiting is None:
                    self._waiting = checkpoint
                self._change.notify_all()
                if self.trouble:
                    self._change.wait_for(lambda old=checkpoint: self._end or self._waiting is not old, self.RETRY)

    def _why(self, checkpoint: Checkpoint, error: Exception) -> str:
        """Which checkpoint could not be written, where, and why; of a full disk how much it lacks."""
        place = self.checkpoints.folder
        cause = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        text = f"the checkpoint of step {checkpoint.progress.step} cannot be written to {place.shown}: {cause}"
        if not place.is_local:
            return text
        tensors = [t for part in TENSORS for t in getattr(checkpoint, part).values()]
        needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return f"{text}; it needs {_megabytes(needed)}, {_megabytes(_free(place.path()))} are free"


def _megabytes(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"


def _free(path: str) -> int:
    """Bytes that the disk of a path has left."""
    there = next(p for p in (Path(path), *Path(path).parents) if p.exists())
    return shutil.disk_usage(there).free
