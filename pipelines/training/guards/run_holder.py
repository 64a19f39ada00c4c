"""The holder of a run's folder: one process at a time, known to all others by a file beside the checkpoints.

The file is renewed every BEAT seconds. A process that died is known at once on its own machine, and on others when its
file was not renewed for DEAD seconds by the clock of the storage. A file has a number in its name, and the highest
holds: who takes over from a dead process writes the next one, which on a local disk only one can create. An object
store takes any number of files; there all who wrote within SETTLE seconds see each other, and the first one holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple, Self

from pyarrow import fs

from pipelines.cluster.connection import IN_A_JOB
from pipelines.storage import Folder
from resnet.frozen import Frozen

BEAT, DEAD = 10.0, 30.0
SETTLE = 2.0
LOOK = 1.0  # seconds between two looks at the file of another
NAME = re.compile(r"holder-(\d{6})(?:-\w+)?\.json")


class Holder(Frozen):
    """A process that works in a folder. machine: of this boot and this container; began: the process, in its ticks."""

    host: str
    pid: int
    machine: str
    began: str
    since: float
    job: str | None = None
    token: str = ""

    @classmethod
    def here(cls) -> Self:
        """This process."""
        token, pid = uuid.uuid4().hex[:8], os.getpid()
        at = {"machine": _machine(), "began": _began(pid), "since": time.time()}
        return cls(host=socket.gethostname(), pid=pid, job=_job(), token=token, **at)

    @property
    def shown(self) -> str:
        """Host, process, job and since when, for people."""
        since = datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        job = f", Ray job {self.job}," if self.job else ""
        return f"process {self.pid} on {self.host}{job} since {since}"

    def lives(self) -> bool | None:
        """True if the process lives; None: it is of another machine, or this one does not say."""
        if not self.machine or self.machine != _machine():
            return None
        began = _began(self.pid)
        return began != "" and began == self.began


class _File(NamedTuple):
    """A holder's file. renewed: by the clock of the storage, or None where it has none."""

    name: str
    renewed: float | None

    @property
    def number(self) -> int:
        found = NAME.fullmatch(self.name)
        return int(found[1]) if found else 0


class RunHolder:
    """This process as the one that works in a folder, between `take` and `release`. say: tells a person of a wait."""

    def __init__(self, folder: Folder, say: Callable[[str], None]) -> None:
        self.folder, self.say, self.me = folder, say, Holder.here()
        self.lost: str | None = None  # why this process must not go on
        self._mine = ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_the_end, name="holder", daemon=True)

    @property
    def file(self) -> str:
        """The name of its file in the folder."""
        return self._mine

    @contextlib.contextmanager
    def held(self) -> Iterator[Self]:
        """Within: this process holds the folder. ValueError: another does."""
        self.take()
        try:
            yield self
        finally:
            self.release()

    def take(self) -> None:
        """Hold the folder, and renew the file from now on. ValueError: another process holds it."""
        try:
            while not self._enter():
                time.sleep(0.1)
        except OSError as error:
            raise ValueError(f"storage must be a folder or bucket that can be written, got {error}") from None
        self._thread.start()

    def _enter(self) -> bool:
        """True if this process holds the folder now; not where another came at the same time."""
        before = require_free(self.folder, self.say)
        number = 1 + max((file.number for file in before), default=0)
        data = self.me.model_dump_json().encode()
        if self.folder.is_local:
            self._mine = f"holder-{number:06d}.json"
            if not self.folder.create(self._mine, data):
                return False
        else:
            self._mine = f"holder-{number:06d}-{self.me.token}.json"
            self._write()
            time.sleep(SETTLE)
        old = {file.name for file in before}
        new = [file for file in _files(self.folder) if file.name not in old]
        first = min(new, key=lambda file: (file.renewed or 0.0, file.name), default=None)
        if first is None or first.name != self._mine or (self.folder.is_local and len(new) > 1):
            self.folder.remove(self._mine)
            return False
        for name in old:
            self.folder.remove(name)
        return True

    def _write(self) -> None:
        with self.folder.writing(self._mine) as file:
            file.write(self.me.model_dump_json().encode())

    def _renew_until_the_end(self) -> None:
        while not self._end.wait(BEAT):
            with contextlib.suppress(OSError):  # a disk or bucket that is away for a while; others cannot write either
                self._renew()

    def _renew(self) -> None:
        mine = _File(self._mine, None)
        later = [file for file in _files(self.folder) if file.number > mine.number]
        if later:
            other = _read(self.folder, later[-1].name)
            self.lost = f"{self.folder.shown} was taken over by {other.shown if other else 'another process'}"
        elif not self.folder.is_local:
            self._write()
        elif os.path.exists(self.folder.path(self._mine)):
            os.utime(self.folder.path(self._mine))  # needs no room on a full disk
        else:
            self._write()

    def release(self) -> None:
        """Hold the folder no longer. A folder with nothing else in it goes too."""
        self._end.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self.folder.remove(self._mine)
            if self.folder.is_local:
                os.rmdir(self.folder.path())


def require_free(folder: Folder, say: Callable[[str], None] = lambda _: None) -> list[_File]:
    """The files of processes that died. Waits until that is certain. ValueError: one of them lives."""
    files = _files(folder)
    for file in files:
        _require_dead(folder, file, say)
    return files


def _require_dead(folder: Folder, file: _File, say: Callable[[str], None]) -> None:
    holder = _read(folder, file.name)
    if holder is None or (lives := holder.lives()) is False:
        return
    began, age, said = time.monotonic(), 0.0, False
    if lives is None and file.renewed is not None:
        age = max(0.0, _now(folder) - file.renewed)
    while lives is None and age + time.monotonic() - began < DEAD:
        if not said:
            wait = DEAD - age
            say(f"{folder.shown} was held by {holder.shown} {age:.0f} s ago; waiting {wait:.0f} s to see if it lives")
            said = True
        time.sleep(LOOK)
        now = {other.name: other for other in _files(folder)}.get(file.name)
        if now is None:
            return
        lives = True if now != file else None
    if lives:
        raise ValueError(
            f"{folder.shown} is held by {holder.shown}, which lives; two trainings in one folder would spoil each "
            "other: wait for its end, or give another --name or --storage"
        )


def _files(folder: Folder) -> list[_File]:
    """Holders' files, the newest last."""
    system, path = folder.place
    infos = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    found = [_File(i.base_name, i.mtime.timestamp() if i.mtime else None) for i in infos if NAME.fullmatch(i.base_name)]
    return sorted(found, key=lambda file: (file.number, file.name))


def _read(folder: Folder, name: str) -> Holder | None:
    """The holder that wrote a file; None where it is gone, or was cut short by a kill."""
    try:
        return Holder(**json.loads(folder.read(name)))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _now(folder: Folder) -> float:
    """The time by the storage's own clock."""
    name = f".clock-{uuid.uuid4().hex[:8]}"
    try:
        with folder.writing(name) as file:
            file.write(b"\n")
        info = folder.place[0].get_file_info(folder.path(name))
        return info.mtime.timestamp() if info.mtime else time.time()
    finally:
        folder.remove(name)


def _machine() -> str:
    """The domain in which process numbers are unique: this boot of the machine, and the container; empty: unknown."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """When a process began, in ticks since the machine did; empty where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]  # a zombie only waits for its parent to look


def _job() -> str | None:
    """The id of the Ray job that this process is, or None."""
    with contextlib.suppress(ValueError, AttributeError):
        metadata = json.loads(os.environ.get(IN_A_JOB, "{}")).get("metadata", {})
        return metadata.get("job_submission_id")
    return None
